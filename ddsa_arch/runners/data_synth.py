"""``ddsa data synth``: render rain on clean photos, or look at a sheet of samples first."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ddsa_arch.errors import InputError, did_you_mean
from ddsa_arch.files.images import images_by_stem, write_image
from ddsa_arch.files.locks import only_writer
from ddsa_arch.ops.rain import PRESETS, rain_style
from ddsa_arch.ops.rain_scenes import RANGES, SHARES, SceneRanges
from ddsa_arch.sets.synthesis import contact_sheet, render_pairs


def synthesise(
    clean_dir: str | Path,
    out: str | Path | None,
    style: str = 'light',
    streaks_dir: str | Path | None = None,
    seed: int = 0,
    copies: int = 1,
    progress: bool = False,
    ranges: SceneRanges | None = None,
    sheet: str | Path | None = None,
) -> int:
    """Render rain on a folder of clean photos; see ``sets.synthesis.render_pairs``.

    Args:
        clean_dir: photos.
        out: gets ``input`` and ``target``; None renders the sheet alone.
        style: ``light`` or ``heavy``.
        streaks_dir: images of streak layers to use instead of drawn streaks.
        seed: the same seed gives the same rain.
        copies: renderings of each photo.
        progress: show a bar.
        ranges: what varies from pair to pair; nothing by default.
        sheet: an image file that gets 24 samples beside each other.

    Returns:
        The number of pairs.

    Raises:
        InputError: neither ``out`` nor ``sheet`` is given, or what ``render_pairs`` refuses.
    """
    if out is None and sheet is None:
        raise InputError('nothing to do: give --out for pairs, or --sheet for a picture of samples')
    clean = images_by_stem(clean_dir, '--clean')
    streaks = list(images_by_stem(streaks_dir, '--streaks').values()) if streaks_dir else []
    look = rain_style(style)
    if sheet is not None:
        write_image(sheet, contact_sheet(clean, look, seed, streaks, ranges))
    if out is None:
        return 0
    bar = partial(tqdm, total=len(clean) * copies, unit='pair', disable=None if progress else True)
    with only_writer(out, 'give another --out', inside=True):
        return render_pairs(clean, out, look, seed, copies, streaks, bar, ranges)


def read_ranges(words: Sequence[str]) -> SceneRanges | None:
    """Read ``--vary`` entries such as ``streak_scale=1,4`` and ``rainless_share=0.1``; None if there are none.

    Raises:
        InputError: an unknown name, or a value that is no range or share.
    """
    given: dict[str, float | tuple[float, ...]] = {}
    for word in words:
        name, equals, text = word.partition('=')
        if name not in (*RANGES, *SHARES):
            raise InputError(f'--vary {word}: nothing is called {name!r}{did_you_mean(name, (*RANGES, *SHARES))}')
        try:
            numbers = tuple(float(part) for part in text.split(','))
        except ValueError as error:
            raise InputError(f'--vary {word}: wanted {name}=LOW,HIGH or, of a share, {name}=SHARE') from error
        if not equals or len(numbers) != (2 if name in RANGES else 1):
            raise InputError(f'--vary {word}: wanted {name}={"LOW,HIGH" if name in RANGES else "SHARE"}')
        given[name] = numbers if name in RANGES else numbers[0]
    return _ranges(given) if given else None


def _ranges(given: Mapping[str, float | tuple[float, ...]]) -> SceneRanges:
    try:
        return SceneRanges(**given)  # type: ignore[arg-type]  # which is checked by value
    except InputError as error:
        raise InputError(f'--vary {error}') from error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ddsa data synth``."""
    parser.add_argument('--clean', required=True, metavar='DIR', help='clean photos')
    parser.add_argument('--out', metavar='DIR', help='gets input/ and target/')
    parser.add_argument('--sheet', metavar='FILE', help='gets a picture of 24 samples, to look at before')
    parser.add_argument('--style', choices=sorted(PRESETS), default='light', help='of the rain (default: light)')
    parser.add_argument('--streaks', metavar='DIR', help='images of streak layers instead of drawn streaks')
    parser.add_argument(
        '--vary', nargs='+', default=[], metavar='NAME=LOW,HIGH',
        help=f'what varies from pair to pair: {", ".join(RANGES)}; and the shares {", ".join(SHARES)}',
    )  # fmt: skip
    parser.add_argument('--seed', type=int, default=0, help='the same seed gives the same rain (default: 0)')
    parser.add_argument('--copies', type=int, default=1, help='renderings of each photo (default: 1)')


def run(args: argparse.Namespace) -> int:
    """Run ``ddsa data synth``."""
    start = time.perf_counter()
    made = synthesise(
        args.clean, args.out, args.style, args.streaks, args.seed, args.copies, sys.stderr.isatty(),
        read_ranges(args.vary), args.sheet,
    )  # fmt: skip
    if args.out is not None:
        print(f'{made} pairs in {args.out}')
    if args.sheet is not None:
        print(f'samples: {args.sheet}')
    print(f'made in {time.perf_counter() - start:.1f} s')
    return 0
