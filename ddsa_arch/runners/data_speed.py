"""``ddsa data speed``: how fast sets of pairs are read for training, LMDBs against folders, in one run."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset

from ddsa_arch.benchmarking.networks import choose_networks
from ddsa_arch.benchmarking.process import run_row
from ddsa_arch.benchmarking.row import Job
from ddsa_arch.data.paired_rain_dataset import PairedRainDataset
from ddsa_arch.errors import InputError
from ddsa_arch.files.matching import find_sides
from ddsa_arch.files.tables import markdown_table

ROUNDS = 3  # the sets take turns, so that a busy moment of the machine meets all of them
BATCH = 16
TIME_LIMIT = 600.0  # seconds for a network
WARM_UP = 2  # batches before the clock starts: processes start, files come into memory


def reading_speeds(
    sets: Sequence[str | Path], workers: Sequence[int], crop: int = 128, pairs: int = 400
) -> dict[tuple[str, int], float]:
    """Measure the pairs per second of a training loader: decoded, cropped, flipped, in batches of 16.

    Args:
        sets: folders, each with ``input.lmdb`` and ``target.lmdb`` or with ``input`` and ``target``.
        workers: numbers of loading processes; 0 loads in this one.
        crop: side of the patches in pixels.
        pairs: read in each of three rounds; a smaller set is gone through several times.

    Returns:
        The median over the rounds, by set and number of workers. Files that were read lately come from memory.

    Raises:
        InputError: a folder that is no set, or a set that PairedRainDataset refuses.
    """
    if min(workers) < 0 or crop < 1 or pairs < 1:
        raise InputError(f'--workers {min(workers)} --crop {crop} --pairs {pairs}: wanted at least 0, 1 and 1')
    datasets = {str(place): _dataset(Path(place), crop) for place in sets}
    seconds: dict[tuple[str, int], list[float]] = {(place, n): [] for place in datasets for n in workers}
    for _ in range(ROUNDS):
        for place, n in seconds:
            seconds[place, n].append(_time(datasets[place], n, pairs))
    return {key: 1 / statistics.median(times) for key, times in seconds.items()}


def _dataset(place: Path, crop: int) -> PairedRainDataset:
    rainy, clean = find_sides(place, 'SET')
    return PairedRainDataset({'phase': 'train', 'gt_size': crop, 'dataroot_lq': str(rainy), 'dataroot_gt': str(clean)})


def _time(dataset: PairedRainDataset, workers: int, pairs: int) -> float:
    """Return the seconds that a pair takes."""
    order = torch.randint(len(dataset), (pairs + WARM_UP * BATCH,), generator=torch.Generator().manual_seed(0))
    batches = iter(DataLoader(Subset(dataset, order.tolist()), BATCH, num_workers=workers))
    for _ in range(WARM_UP):
        next(batches)
    start = time.perf_counter()
    read = sum(len(batch['lq']) for batch in batches)
    return (time.perf_counter() - start) / read


def training_speed(network: str, crop: int, batch: int) -> float:
    """Measure the pairs per second on which a network trains here, with patches of one size in memory.

    Args:
        network: see ``ddsa benchmark``.
        crop: side of the patches in pixels.
        batch: patches of a step.

    Raises:
        InputError: no such network, or it could not be measured.
    """
    (chosen,) = choose_networks([network])
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    job = Job(
        chosen.network_g, chosen.imports, chosen.size_multiple, height=crop, width=crop, dtype='float32',
        mode='training', form='fast', batch=batch, device=device,
        compiled=False, threads=None, warmup=2, repeats=5, keep_memory=True, count=False,
    )  # fmt: skip
    figures = run_row(job, TIME_LIMIT)
    if 'images_per_second' not in figures:
        raise InputError(f'--network {network}: could not be measured: {figures["error"]}')
    return figures['images_per_second']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('sets', nargs='+', metavar='SET', help='folder with input.lmdb and target.lmdb, or with images')
    parser.add_argument('--workers', nargs='+', type=int, default=[0, 1, 2], help='loading processes (default: 0 1 2)')
    parser.add_argument('--crop', type=int, default=128, help='side of the patches in pixels (default: 128)')
    parser.add_argument('--network', metavar='NAME', help='compare with what a network takes in training')
    parser.add_argument('--batch', type=int, default=4, help='patches of its training step (default: 4)')
    parser.add_argument('--pairs', type=int, default=400, help='read in each of three rounds (default: 400)')


def run(args: argparse.Namespace) -> int:
    if args.batch < 1:
        raise InputError(f'--batch {args.batch}: wanted a whole number from 1 up')
    if args.network:
        choose_networks([args.network])  # wrong names are found before the sets are read
    speeds = reading_speeds(args.sets, args.workers, args.crop, args.pairs)
    rows = []
    first = str(args.sets[0])
    for place in map(str, args.sets):
        ratios = {n: speeds[place, n] / speeds[first, n] for n in args.workers}
        rows.append((place, *(f'{speeds[place, n]:.1f} ({ratio:.2f})' for n, ratio in ratios.items())))
    print(f'pairs/s at crop {args.crop}, median of {ROUNDS} rounds, and the ratio to the first set')
    print(markdown_table(rows, ('set', *(f'{n} workers' for n in args.workers))))
    if args.network:
        taken = training_speed(args.network, args.crop, args.batch)
        print(f'{args.network} trains on {taken:.2f} pairs/s (batch {args.batch}); so many times as many are read:')
        cells = [(place, *(f'{speeds[place, n] / taken:.1f}' for n in args.workers)) for place in map(str, args.sets)]
        print(markdown_table(cells, ('set', *(f'{n} workers' for n in args.workers))))
    return 0
