"""The main job on an embedded example: data, LMDBs, training, validation, test, a derained photo and a gallery.

Photos that scikit-image carries get rendered rain; the tiny DDSANet learns from some of them and is scored on
others. Everything lands in one folder, and the last lines say where.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ddsa_arch.archs.building import build_network
from ddsa_arch.comparison.runs import RAINY
from ddsa_arch.errors import InputError
from ddsa_arch.fast import accelerate
from ddsa_arch.fast.memory_format import lay_out
from ddsa_arch.files.images import images_by_stem, read_image, write_image
from ddsa_arch.files.locks import only_writer
from ddsa_arch.files.tables import finite_mean, markdown_table, write_csv
from ddsa_arch.inference.derainer import Derainer
from ddsa_arch.machine.process import keep_freed_memory
from ddsa_arch.ops.figures import side_by_side
from ddsa_arch.ops.quality import psnr_y
from ddsa_arch.ops.rain import RainStyle, rain_style
from ddsa_arch.options.loading import load_options
from ddsa_arch.runners.cli import EXIT_INPUT
from ddsa_arch.runners.compare import PAGE, compare
from ddsa_arch.runners.data_lmdb import make_lmdb
from ddsa_arch.runners.derain import derain_files
from ddsa_arch.runners.summary import FOLDER as SUMMARY
from ddsa_arch.runners.train import train
from ddsa_arch.sets.sample_photos import TEST_PHOTOS, TILE_SIZE, TRAIN_PHOTOS, sample_photos, write_tiles
from ddsa_arch.sets.synthesis import render_pairs
from ddsa_arch.training import pipeline

OPTIONS = 'quickstart'  # for training and for the test
MARKER = 'made_by_quickstart.txt'  # a folder with this file may be made anew
COPIES = 4  # rainy versions of each training tile
FEWEST_STEPS, MOST_STEPS = 50, 20000
CONSTANT_SHARE = 0.3  # of the steps at the full learning rate, as the paper's 92K of 300K
TRIAL_STEPS = 8
DERAINED = 'Derained'


@dataclass(frozen=True)
class Report:
    """The places of the results, and the scores: (photo, rainy PSNR, rainy SSIM, derained PSNR, derained SSIM)."""

    folder: Path
    picture: Path
    gallery: Path
    scores: Path
    weights: Path
    summary: Path
    rows: list[tuple[str, float, float, float, float]]


def quickstart(
    out: str | Path = 'quickstart', minutes: float = 6.0, style: str = 'heavy', seed: int = 0, device: str = 'auto'
) -> Report:
    """Run the whole job.

    Args:
        out: made anew if an earlier quickstart made it.
        minutes: about how long to train.
        style: of the rain, ``light`` or ``heavy``.
        seed: of rain and training.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: ``out`` is a folder of something else; another argument cannot be used.
    """
    if minutes <= 0:
        raise InputError(f'--minutes {minutes}: wanted more than 0')
    out = Path(out).resolve()
    with only_writer(out, 'give another --out'):
        _fresh_folder(out)
        return _quickstart(out, minutes, style, seed, device)


def _quickstart(out: Path, minutes: float, style: str, seed: int, device: str) -> Report:
    say = _Steps(6)

    say('rendering rain on photos')
    data = out / 'data'
    rain = rain_style(style)
    _render(TRAIN_PHOTOS, TILE_SIZE, data / 'train', rain, seed, COPIES)
    _render(TEST_PHOTOS, None, data / 'test', rain, seed + 1, 1)

    say('making LMDBs')
    for part in ('train', 'test'):
        make_lmdb(data / part / 'input', data / part / 'target', data / part)

    gpus = 0 if device == 'cpu' or (device == 'auto' and not torch.cuda.is_available()) else 1
    common = [f'num_gpu={gpus}', f'manual_seed={seed}']
    steps = _steps_for(minutes, common)
    say(f'training for {steps} steps, about {minutes:g} minutes on the {"GPU" if gpus else "CPU"}')
    held = round(steps * CONSTANT_SHARE)
    experiment = train(
        OPTIONS,
        root=out,
        force_yml=[
            *common,
            *_data_roots(data, train='train', val='test'),
            f'train:total_iter={steps}',
            f'train:scheduler:begin={held}',
            f'train:scheduler:end={steps}',
            f'train:scheduler:T_max={steps - held}',
            f'val:val_freq={max(1, steps // 4)}',
            f'logger:print_freq={max(1, steps // 40)}',
            f'logger:save_checkpoint_freq={steps}',
        ],
    )
    weights = experiment / 'models' / 'net_g_latest.pth'

    say('testing on photos that were not trained on')
    tested = [*common, *_data_roots(data, test_1='test'), f'path:pretrain_network_g={weights}']
    results = pipeline.run(OPTIONS, False, root=out, force_yml=tested)

    say('deraining a rainy photo')
    rainy = images_by_stem(data / 'test' / 'input')
    first = next(iter(rainy))
    derainer = Derainer(weights, device='cuda' if gpus else 'cpu')
    (derained,) = derain_files([rainy[first]], out / 'derained', derainer).done
    picture = out / 'before_after.png'
    clean = read_image(data / 'test' / 'target' / f'{first}.png')
    shown = [read_image(rainy[first]), read_image(derained), clean]
    labels = [f'{n}, {psnr_y(image, clean):.2f} dB' for n, image in (('rainy', shown[0]), ('derained', shown[1]))]
    write_image(picture, side_by_side(shown, [*labels, 'clean']))

    say('comparing rainy and derained')
    compared = compare([f'{DERAINED}={results}'], out / 'comparison')
    (scores,) = compared.sets
    found = [scores.values[method][metric] for method in (RAINY, DERAINED) for metric in ('psnr', 'ssim')]
    rows = list(zip(scores.compared.stems, *found, strict=True))
    columns = ('photo', 'rainy_psnr', 'rainy_ssim', 'derained_psnr', 'derained_ssim')
    write_csv(out / 'scores.csv', [dict(zip(columns, row, strict=True)) for row in rows], columns)
    return Report(out, picture, compared.folder / PAGE, out / 'scores.csv', weights, experiment / SUMMARY, rows)


class _Steps:
    """Announces the parts of the job with the time they began."""

    def __init__(self, total: int) -> None:
        self.total, self.count, self.start = total, 0, time.perf_counter()

    def __call__(self, what: str) -> None:
        self.count += 1
        print(f'[{self.count}/{self.total}, {time.perf_counter() - self.start:.0f} s] {what}', flush=True)


def _fresh_folder(out: Path) -> None:
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MARKER).is_file())):
        raise InputError(f'--out {out} holds something that no quickstart made; give another folder')
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARKER).write_text('scripts/quickstart.py makes this folder anew each time it runs.\n', encoding='utf-8')


def _render(names: Sequence[str], tile_size: int | None, out: Path, style: RainStyle, seed: int, copies: int) -> None:
    """Write rainy and clean versions of sample photos; the clean tiles lie on the disk for as long as it takes."""
    with tempfile.TemporaryDirectory() as clean:
        render_pairs(write_tiles(sample_photos(names), clean, tile_size), out, style, seed, copies)


def _data_roots(data: Path, **parts: str) -> list[str]:
    return [
        f'datasets:{phase}:dataroot_{side}={data / part / name}'
        for phase, part in parts.items()
        for side, name in (('lq', 'input.lmdb'), ('gt', 'target.lmdb'))
    ]


def _steps_for(minutes: float, overrides: Sequence[str]) -> int:
    """Return how many training steps fit into the time; a few are run and timed."""
    options = load_options(OPTIONS, True, overrides)
    if not options['num_gpu']:
        keep_freed_memory()
    device = 'cuda' if options['num_gpu'] else 'cpu'
    net = build_network(options['network_g'])
    net = lay_out(net.to(device), torch.channels_last)
    accelerate(net)
    patches = options['datasets']['train']
    size = patches['gt_size']
    batch = torch.rand(patches['batch_size_per_gpu'], 3, size, size, device=device)
    batch = batch.to(memory_format=torch.channels_last)
    times = []
    for _ in range(TRIAL_STEPS):
        start = time.perf_counter()
        (net(batch) - batch).abs().mean().backward()
        if device == 'cuda':
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    typical = np.quantile(times, 0.25)  # the first steps are slow, and so are those beside other work
    return int(np.clip(minutes * 60 / typical, FEWEST_STEPS, MOST_STEPS))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='quickstart', description=__doc__)
    parser.add_argument('--minutes', type=float, default=6.0, help='about how long to train (default: 6)')
    parser.add_argument('--out', default='quickstart', metavar='DIR', help='where everything lands')
    parser.add_argument('--rain', choices=['light', 'heavy'], default='heavy', help='how much rain (default: heavy)')
    parser.add_argument('--seed', type=int, default=0, help='of rain and training (default: 0)')
    parser.add_argument('--device', choices=['auto', 'cpu', 'cuda'], default='auto')
    args = parser.parse_args(argv)
    try:
        report = quickstart(args.out, args.minutes, args.rain, args.seed, args.device)
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return EXIT_INPUT
    _, *measured = zip(*report.rows, strict=True)
    means = ('mean', *map(finite_mean, measured))
    table = [(row[0], *(f'{v:.2f}' if i % 2 == 0 else f'{v:.4f}' for i, v in enumerate(row[1:]))) for row in
             [*report.rows, means]]  # fmt: skip
    header = ('photo', 'rainy PSNR', 'rainy SSIM', 'derained PSNR', 'derained SSIM')
    print(f'\n{markdown_table(table, header)}\n')
    places = {'picture': report.picture, 'gallery': report.gallery, 'scores': report.scores}
    places |= {'weights': report.weights, 'curves': report.summary}
    print('\n'.join(f'{what + ":":8} {path}' for what, path in places.items()))
    return 0


if __name__ == '__main__':
    sys.exit(main())
