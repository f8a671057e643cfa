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
from ddsa_arch.files.atomic import atomic_path
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
    for side in ('input', 'target'):
        if (out / side).exists():
            raise InputError(f'{out / side} is there already; delete it first, or give another folder')
    made_out = not out.exists()
    jobs = [(stem, path, i) for stem, path in clean.items() for i in range(copies)]
    render = partial(_render, out=out, style=style, seed=seed, streaks=list(streaks))
    alone = len(jobs) <= FEW_JOBS or os.cpu_count() == 1
    try:
        with nullcontext() if alone else ProcessPoolExecutor() as pool:
            for _ in progress(map(render, jobs) if pool is None else pool.map(render, jobs, chunksize=JOBS_AT_ONCE)):
                pass
    except BaseException:
        for folder in (out / 'input', out / 'target', *([out] if made_out else [])):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return len(jobs)


def _render(job: tuple[str, Path, int], out: Path, style: RainStyle, seed: int, streaks: list[Path]) -> None:
    stem, path, i = job
    rng = sample_rng(seed, zlib.crc32(stem.encode()), i)
    layer = None
    if streaks:
        layer = cv2.cvtColor(read_image(streaks[rng.integers(len(streaks))]), cv2.COLOR_BGR2GRAY)
    write_image(out / 'input' / f'{stem}_{i}.png', add_rain(read_image(path), style, rng, layer))
    with atomic_path(out / 'target' / f'{stem}_{i}{path.suffix}') as part:
        shutil.copyfile(path, part)
