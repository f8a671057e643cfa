"""``ddsa summary``: the course of a training in pictures: curves, and validation images over time."""

from __future__ import annotations

import argparse
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from basicsr.metrics import calculate_metric

from ddsa_arch.errors import InputError
from ddsa_arch.files.atomic import atomic_path
from ddsa_arch.files.growing_table import read_table
from ddsa_arch.files.images import read_image, write_image
from ddsa_arch.files.plots import Curve, plot, running_mean, write_plot
from ddsa_arch.models.kept_images import RAINY, STRIPS, TARGET
from ddsa_arch.ops.figures import fit_width, side_by_side
from ddsa_arch.options.reading import read_options
from ddsa_arch.training.progress import TABLE_FIGURES, TABLE_NAME
from ddsa_arch.training.resolved import RESOLVED_NAME

FOLDER = 'summary'
SCORES = Path('validation', 'summary.csv')
COUNTED = '_counted'  # ends the column that stands beside each metric in SCORES
SHOWN_AT_MOST = 5  # iterations in a strip
SMOOTHED_FROM = 60  # rows of the table; fewer are drawn as they are
SMOOTHED_SHARE = 30  # the mean is over this part of the rows

Row = dict[str, str]


def summarise(experiment: str | Path) -> Path:
    """Draw what a training has written so far; it may be running, stopped or done.

    ``loss.png``, ``lr.png`` and a PNG for each metric are curves over iterations, ``strips/<set>/<image>.png`` shows
    the first images of each validation set at several iterations, ``results.csv`` is a copy of the scores.

    Args:
        experiment: its folder, with ``training.csv`` and ``validation/``.

    Returns:
        The folder ``summary`` in it.
    """
    experiment = Path(experiment)
    folder = experiment / FOLDER
    folder.mkdir(exist_ok=True)
    training = read_table(experiment / TABLE_NAME)
    if training:
        _draw_training(training, folder)
    scores = read_table(experiment / SCORES)
    _draw_scores([row for row in scores if row['iteration']], folder)
    if scores:
        with atomic_path(folder / 'results.csv') as part:
            shutil.copyfile(experiment / SCORES, part)
    _draw_strips(experiment, folder)
    return folder


def _draw_training(rows: list[Row], folder: Path) -> None:
    losses = [name for name in rows[0] if name not in TABLE_FIGURES]
    smooth = len(rows) >= SMOOTHED_FROM
    curves = []
    for loss in losses:
        x, y = _column(rows, 'iteration'), _column(rows, loss)
        if smooth:
            count = len(rows) // SMOOTHED_SHARE
            curves.append(Curve('', x, y, faint=True))
            curves.append(Curve(f'{loss}, mean of {count} values', x, running_mean(y, count)))
        else:
            curves.append(Curve(loss, x, y))
    positive = all(value > 0 for curve in curves for value in curve.y if math.isfinite(value))
    if curves:
        write_plot(folder / 'loss.png', plot(curves, 'Loss', 'iteration', 'loss', log_y=positive))
    rate = Curve('', _column(rows, 'iteration'), _column(rows, 'lr'))
    write_plot(folder / 'lr.png', plot([rate], 'Learning rate', 'iteration', 'learning rate'))


def _draw_scores(rows: list[Row], folder: Path) -> None:
    metrics = [name.removesuffix(COUNTED) for name in (rows[0] if rows else ()) if name.endswith(COUNTED)]
    sets = list(dict.fromkeys(row['set'] for row in rows))
    for metric in metrics:
        curves = []
        for name in sets:
            own = [row for row in rows if row['set'] == name]
            curves.append(Curve(name, _column(own, 'iteration'), _column(own, metric)))
        write_plot(folder / f'{metric}.png', plot(curves, f'Validation: {metric}', 'iteration', metric))


def _column(rows: list[Row], name: str) -> list[float]:
    return [float(row[name] or math.nan) for row in rows]


def _draw_strips(experiment: Path, folder: Path) -> None:
    psnr = _psnr_of(experiment)
    for first in sorted((experiment / STRIPS).glob(f'*/*_{RAINY}.png')):
        stem = first.stem.removesuffix(f'_{RAINY}')
        derained = {
            int(path.stem.rsplit('_', 1)[1]): path
            for path in first.parent.iterdir()
            if path.stem.rsplit('_', 1)[0] == stem and path.stem.rsplit('_', 1)[1].isdecimal()
        }
        if not derained:
            continue
        target_path = first.with_name(f'{stem}_{TARGET}.png')
        target = read_image(target_path) if target_path.exists() else None
        shown = {RAINY: read_image(first)}
        shown |= {f'iter {i}': read_image(derained[i]) for i in evenly(sorted(derained), SHOWN_AT_MOST)}
        labels = [label + _score_text(psnr, image, target) for label, image in shown.items()]
        pictures = list(shown.values())
        if target is not None:
            labels.append(TARGET)
            pictures.append(target)
        strip = side_by_side([fit_width(picture) for picture in pictures], labels)
        write_image(folder / 'strips' / first.parent.name / f'{stem}.png', strip)


def evenly(values: Sequence[int], count: int) -> list[int]:
    """Return at most ``count`` of the values, from the first to the last in equal steps."""
    places = np.linspace(0, len(values) - 1, min(count, len(values)))
    return [values[round(place)] for place in places]


def _psnr_of(experiment: Path) -> dict[str, Any] | None:
    """Return the options of the metric that measured PSNR in validation."""
    path = experiment / RESOLVED_NAME
    options = read_options(path) if path.is_file() else {}
    metrics = (options.get('val') or {}).get('metrics') or {}
    return next((metric for metric in metrics.values() if 'psnr' in metric['type']), None)


def _score_text(psnr: dict[str, Any] | None, image: np.ndarray, target: np.ndarray | None) -> str:
    if psnr is None or target is None:
        return ''
    try:
        return f': {calculate_metric({"img": image, "img2": target}, psnr):.2f} dB'
    except InputError:  # the image is too small for the crop
        return ''


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='ddsa summary', description=__doc__)
    parser.add_argument('experiment', metavar='DIR', help='experiments/NAME of a training, done or not')
    experiment = Path(parser.parse_args(argv).experiment)
    if not (experiment / RESOLVED_NAME).is_file():
        raise InputError(f'{experiment}: no {RESOLVED_NAME} there; name the folder of a training, experiments/NAME')
    print(f'summary: {summarise(experiment)}')
    return 0
