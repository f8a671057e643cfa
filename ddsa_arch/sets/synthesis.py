"""Render rain on clean photos, many of them on all cores: the pairs of ``ddsa data synth`` and of the quickstart."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from ddsa_arch.errors import InputError
from ddsa_arch.files.atomic import atomic_folder, sweep
from ddsa_arch.files.images import read_image, write_image
from ddsa_arch.ops.rain import RainStyle, add_rain
from ddsa_arch.ops.rain_scenes import SceneRanges, render_scene
from ddsa_arch.ops.seeds import sample_rng

JOBS_AT_ONCE = 4  # handed to a process in one go
SHEET_ROWS, SHEET_COLUMNS, SHEET_SIDE = 4, 6, 320  # samples, and pixels of each
FEW_JOBS = 16  # up to here, processes would take longer to start than to render


def render_pairs(
    clean: Mapping[str, Path],
    out: str | Path,
    style: RainStyle,
    seed: int = 0,
    copies: int = 1,
    streaks: Sequence[Path] = (),
    progress: Callable[[Iterable], Iterable] = iter,
    ranges: SceneRanges | None = None,
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
        ranges: what varies from pair to pair; a target that is not the photo as it is becomes a PNG.

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
        render = partial(
            _render, inputs=inputs, targets=targets, style=style, seed=seed, streaks=list(streaks), ranges=ranges
        )
        with nullcontext() if alone else ProcessPoolExecutor(initializer=_end_with_parent) as pool:
            for _ in progress(map(render, jobs) if pool is None else pool.map(render, jobs, chunksize=JOBS_AT_ONCE)):
                pass
    return len(jobs)


def _end_with_parent() -> None:
    """Let a rendering process end when its parent is killed; a pool's processes wait for work for ever then."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _render(
    job: tuple[str, Path, int],
    inputs: Path,
    targets: Path,
    style: RainStyle,
    seed: int,
    streaks: list[Path],
    ranges: SceneRanges | None,
) -> None:
    stem, path, i = job
    rng = sample_rng(seed, zlib.crc32(stem.encode()), i)
    photo = read_image(path)
    if ranges is None:
        layer = _layer(streaks, rng) if streaks else None
        write_image(inputs / f'{stem}_{i}.png', add_rain(photo, style, rng, layer))
        shutil.copyfile(path, targets / f'{stem}_{i}{path.suffix}')
        return
    scene = render_scene(photo, style, ranges, rng, partial(_layer, streaks) if streaks else None)
    write_image(inputs / f'{stem}_{i}.png', scene.rainy)
    if np.array_equal(scene.clean, photo):
        shutil.copyfile(path, targets / f'{stem}_{i}{path.suffix}')
    else:
        write_image(targets / f'{stem}_{i}.png', scene.clean)


def _layer(streaks: Sequence[Path], rng: np.random.Generator) -> np.ndarray:
    return cv2.cvtColor(read_image(streaks[int(rng.integers(len(streaks)))]), cv2.COLOR_BGR2GRAY)


def contact_sheet(
    clean: Mapping[str, Path],
    style: RainStyle,
    seed: int = 0,
    streaks: Sequence[Path] = (),
    ranges: SceneRanges | None = None,
) -> np.ndarray:
    """Render 24 samples beside each other, cut from the middle of photos, uint8 BGR.

    Args:
        clean: photos by stem; taken in turns.
        style: what the rain looks like.
        seed: of the rain.
        streaks: see ``render_pairs``.
        ranges: see ``render_pairs``.
    """
    paths = list(clean.values())
    samples = []
    for number in range(SHEET_ROWS * SHEET_COLUMNS):
        photo = read_image(paths[number % len(paths)])
        rng = sample_rng(seed, number)
        layer = partial(_layer, list(streaks)) if streaks else None
        scene = render_scene(_middle(photo), style, ranges or SceneRanges(), rng, layer)
        samples.append(scene.rainy)
    rows = [np.hstack(samples[row * SHEET_COLUMNS : (row + 1) * SHEET_COLUMNS]) for row in range(SHEET_ROWS)]
    return np.vstack(rows)


def _middle(photo: np.ndarray) -> np.ndarray:
    """Cut a square of the sheet's size out of the middle, after a reflection where the photo is smaller."""
    missing = [max(0, SHEET_SIDE - side) for side in photo.shape[:2]]
    photo = np.pad(photo, [(m // 2, m - m // 2) for m in missing] + [(0, 0)], mode='symmetric')
    top, left = ((side - SHEET_SIDE) // 2 for side in photo.shape[:2])
    return photo[top : top + SHEET_SIDE, left : left + SHEET_SIDE]
