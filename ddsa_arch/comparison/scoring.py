"""Score all compared methods on a set by one protocol, anew from the images where there are any."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ddsa_arch.comparison.runs import ComparedSet, Method
from ddsa_arch.comparison.scores import score_named
from ddsa_arch.errors import InputError
from ddsa_arch.files.images import some
from ddsa_arch.files.tables import finite_mean
from ddsa_arch.metrics.brisque import regression
from ddsa_arch.models.protocol import metrics_block
from ddsa_arch.models.scoring import score_image

WITH_TARGET = ('psnr', 'ssim')
WITHOUT_TARGET = ('niqe', 'brisque')
AGREEMENT = 1e-6  # of a score taken anew with the stored one


@dataclass(frozen=True)
class SetScores:
    """The scores of all methods on a set.

    Args:
        compared: the set.
        metrics: names, in the order shown.
        values: by method and metric, for each of ``compared.stems``; of several runs the mean.
        notes: by method, for each image; '' where there is nothing to say.
        warnings: what a reader of the figures should know.
        runs: the values of each run, by method, in the order of ``Method.runs``.
    """

    compared: ComparedSet
    metrics: tuple[str, ...]
    values: Mapping[str, Mapping[str, Sequence[float]]]
    notes: Mapping[str, Sequence[str]]
    warnings: Sequence[str]
    runs: Mapping[str, Sequence[Mapping[str, Sequence[float]]]]

    def mean(self, method: str, metric: str) -> float:
        """Return the mean over the images with a finite score; NaN for a method or metric that the set lacks."""
        return finite_mean(self.values.get(method, {}).get(metric, ()))


def used_metrics(scored: Sequence[SetScores]) -> list[str]:
    """Return the metrics of all sets, each once."""
    return list(dict.fromkeys(metric for one in scored for metric in one.metrics))


def metric_options(names: Sequence[str], protocol: str) -> dict[str, dict[str, Any]]:
    """Return the options of metrics as an option file would have them.

    Raises:
        InputError: a name that is no score, or BRISQUE without its model.
    """
    options: dict[str, dict[str, Any]] = {}
    for name in names:
        score_named(name)
        options[name] = {'type': f'derain_{name}'}
        if name in WITH_TARGET:
            options[name]['protocol'] = protocol
    if 'brisque' in options:
        regression()
    return options


def _metrics_without_target() -> tuple[Sequence[str], str]:
    """Return the metrics that can be had without targets, and why one of them cannot be."""
    try:
        regression()
    except InputError as error:
        return [name for name in WITHOUT_TARGET if name != 'brisque'], str(error)
    return WITHOUT_TARGET, ''


def score_set(
    compared: ComparedSet, names: Sequence[str] | None, protocol: str, threads: int, progress: bool = False
) -> SetScores:
    """Score all methods on all images of a set.

    Args:
        compared: the set.
        names: of the metrics; by default PSNR and SSIM, or NIQE and BRISQUE where there are no targets.
        protocol: of PSNR and SSIM.
        threads: images scored at once.
        progress: show a bar.

    Raises:
        InputError: a broken image, unequal sizes, or stored scores of another protocol without images.
    """
    lacking = ''
    if names is None:
        names, lacking = (WITH_TARGET, '') if compared.targets else _metrics_without_target()
    elif not compared.targets:
        names = [name for name in names if name not in WITH_TARGET]
    if not names:
        raise InputError(f'{compared.name} has no targets for PSNR and SSIM; give --target, or --metrics niqe brisque')
    options = metric_options(names, protocol)
    runs = [run for method in compared.methods.values() for run in method.runs]
    stored = {run.path: _stored_scores(run, compared, options) for run in runs if compared.name not in run.images}

    def score(stem: str) -> dict[Path, tuple[dict[str, float], str]]:
        target = compared.targets.read(stem) if compared.targets else None
        found = {}
        for run in runs:
            if run.path in stored:
                found[run.path] = stored[run.path][stem]
                continue
            image = run.read(compared.name, stem)
            if compared.targets and target is not None and image.shape != target.shape:
                raise InputError(
                    f'{run.where(compared.name, stem)} is {image.shape[1]} x {image.shape[0]} pixels, its target '
                    f'{compared.targets.path(stem)} {target.shape[1]} x {target.shape[0]}; are they of one set?'
                )
            found[run.path] = score_image(image, target, options)
        return found

    inside = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the images are shared out already
    try:
        with ThreadPoolExecutor(threads) as pool:
            work = pool.map(score, compared.stems)
            hidden = None if progress else True  # None: where the output is no terminal
            by_image = list(tqdm(work, total=len(compared.stems), desc=compared.name, unit='image', disable=hidden))
    finally:
        cv2.setNumThreads(inside)
    by_run = {run.path: {m: [row[run.path][0][m] for row in by_image] for m in options} for run in runs}
    of_methods = {name: [by_run[run.path] for run in method.runs] for name, method in compared.methods.items()}
    values, notes = {}, {}
    for name, method in compared.methods.items():
        values[name] = {m: np.mean([of[m] for of in of_methods[name]], axis=0).tolist() for m in options}
        told = [{row[run.path][1]: None for run in method.runs if row[run.path][1]} for row in by_image]  # each once
        notes[name] = ['; '.join(of) for of in told]
    warnings = [
        f'{run.name}: scores of {compared.name} as its test stored them, no images'
        for run in runs
        if run.path in stored
    ]
    if compared.left_out:
        warnings.append(f'{compared.name}: without {some(compared.left_out)}, which not all methods have')
    if lacking:
        warnings.append(f'{compared.name}: without BRISQUE: {lacking}')
    for run in runs:
        if run.path not in stored:
            warnings += _disagreements(run, compared, options, by_run[run.path])
    return SetScores(compared, tuple(options), values, notes, list(dict.fromkeys(warnings)), of_methods)


def _stored_scores(
    method: Method, compared: ComparedSet, options: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[dict[str, float], str]]:
    """Return the scores that a test wrote, if they are of the same kind."""
    if not _same_kind(method, options):
        wanted = ', '.join(f'{name} {o["protocol"]}' if 'protocol' in o else name for name, o in options.items())
        raise InputError(
            f'{method.path} has no images of {compared.name}, and its scores are not those wanted ({wanted}); '
            'test again with --force_yml val:save_img=true'
        )
    rows = method.stored[compared.name]
    return {
        stem: ({metric: _number(rows[stem].get(metric)) for metric in options}, rows[stem].get('note', ''))
        for stem in compared.stems
    }


def _same_kind(method: Method, options: Mapping[str, Mapping[str, Any]]) -> bool:
    """Tell whether the stored scores were taken by these metrics with these options."""
    protocol = method.protocol or {}
    stored = {**protocol.get('metrics_without_target', {}), **protocol.get('metrics', {})}
    wanted = metrics_block({name: dict(o) for name, o in options.items()})
    sides = ('better',)  # no part of the value
    return all(
        {k: v for k, v in stored.get(name, {}).items() if k not in sides}
        == {k: v for k, v in block.items() if k not in sides}
        for name, block in wanted.items()
    )


def _disagreements(
    method: Method,
    compared: ComparedSet,
    options: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, Sequence[float]],
) -> list[str]:
    """Warn where the images give other scores than their test stored, as one of both has changed since."""
    rows = method.stored.get(compared.name)
    if not rows or not _same_kind(method, options):
        return []
    other = [
        stem
        for place, stem in enumerate(compared.stems)
        if any(
            stem in rows and not np.isclose(values[m][place], _number(rows[stem].get(m)), 0, AGREEMENT, equal_nan=True)
            for m in options
        )
    ]
    if not other:
        return []
    return [
        f'{method.name}: {len(other)} images of {compared.name} score otherwise than {method.path / "results.json"} '
        f'says ({some(other)}): the images or the targets have changed since'
    ]


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
