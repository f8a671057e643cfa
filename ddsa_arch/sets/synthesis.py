"""Render rain on clean photos, many of them on all cores: the pairs of ``ddsa data synth`` and of the quickstart."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import cv2

from ddsa_arch.errors import InputError
from ddsa_arch.files.atomic import atomic_folder, sweep
from ddsa_arch.files.images import read_image, write_image
from ddsa_arch.ops.rain import RainStyle, add_rain
from ddsa_arch.ops.seeds import sample_rng

JOBS_AT_ONCE = 4  # handed to a process in one go
FEW_JOBS = 16  # up to here, processes would take longer to start than to render


def render_pairs(
    clean: Mapping[str, Path],
    out: str | Path,
    style: RainStyle,
    seed: int = 0,
    copies: int = 1,
    streaks: Sequence[Path] = (),
    progress: Callable[[Iterable], Iterable] = iter,
) -> int:
    """Write ``out/input/STEM_i.png`` with rain and ``out/target/STEM_i.SUFFIX``, the clean file as it is.

    The rain depends on (seed, stem, i) alone, so neither the number of processes nor another photo changes an image.
    Up to ``FEW_JOBS`` renderings, and all of them where there is one core, are made in this process.

    Args:
        clean: photos by stem.
        out: gets ``input`` and ``target``; may exist, but not hold these.
        style: what the rain looks like; with ``streaks`` it gives the veil alone.
        seed: >= 0.
        copies: renderings of each photo, >= 1.
        streaks: images of streak layers, one of which is drawn for each rendering; drawn streaks if empty.
        progress: wraps the iterable of renderings, such as tqdm.

    Returns:
        The number of pairs.

    Raises:
        InputError: ``out`` holds pairs already; a photo or layer is broken. Nothing is left behind.
    """
    out = Path(out)
    if copies < 1 or seed < 0:
        raise InputError(f'copies {copies} and seed {seed}: wanted at least 1 and 0')
    for left in out.glob('input.*.part'):
        if (out / 'target').exists() and not (out / 'input').exists():  # it was killed between the last two steps
            left.rename(out / 'input')
    sweep(out)
    for side in ('input', 'target'):
        if (out / side).exists():
            raise InputError(f'{out / side} is there already; delete it first, or give another folder')
    jobs = [(stem, path, i) for stem, path in clean.items() for i in range(copies)]
    alone = len(jobs) <= FEW_JOBS or os.cpu_count() == 1
    with atomic_folder(out / 'input') as inputs, atomic_folder(out / 'target') as targets:
        render = partial(_render, inputs=inputs, targets=targets, style=style, seed=seed, streaks=list(streaks))
        with nullcontext() if alone else ProcessPoolExecutor() as pool:
            for _ in progress(map(render, jobs) if pool is None else pool.map(render, jobs, chunksize=JOBS_AT_ONCE)):
                pass
    return len(jobs)


def _render(
    job: tuple[str, Path, int], inputs: Path, targets: Path, style: RainStyle, seed: int, streaks: list[Path]
) -> None:
    stem, path, i = job
    rng = sample_rng(seed, zlib.crc32(stem.encode()), i)
    layer = None
    if streaks:
        layer = cv2.cvtColor(read_image(streaks[rng.integers(len(streaks))]), cv2.COLOR_BGR2GRAY)
    write_image(inputs / f'{stem}_{i}.png', add_rain(read_image(path), style, rng, layer))
    shutil.copyfile(path, targets / f'{stem}_{i}{path.suffix}')
