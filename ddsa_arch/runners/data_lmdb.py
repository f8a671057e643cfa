"""``ddsa data lmdb``: image files to two LMDBs, paired by a rule for their names."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import time
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ddsa_arch.errors import InputError
from ddsa_arch.files.images import ImageFile
from ddsa_arch.files.lmdb_store import read_entries
from ddsa_arch.files.matching import Pairs
from ddsa_arch.files.name_rules import AUTO, LEFT_CLEAN, MATCHES, RIGHT_CLEAN
from ddsa_arch.files.one_folder import pair_halves
from ddsa_arch.files.pair_lists import pair_list
from ddsa_arch.files.pair_sources import find_pairs
from ddsa_arch.files.tables import markdown_table
from ddsa_arch.sets.pair_stores import write_pair_stores

MEBIBYTE = 1 << 20
COMPARED = 32  # pairs whose two files are compared before the work


def make_lmdb(
    input_dir: str | Path | None,
    target_dir: str | Path | None,
    out: str | Path,
    pairs: str | None = None,
    skip_bad: bool = False,
    progress: bool = False,
    match: str = AUTO,
    pairs_file: str | Path | None = None,
    halves: str | Path | None = None,
) -> tuple[tuple[Path, Path], list[str]]:
    """Make ``out/input.lmdb`` and ``out/target.lmdb`` from images that are paired by their names.

    Args:
        input_dir: rainy images: a folder, or a pattern with ``*``; with ``pairs_file`` where its paths begin.
        target_dir: clean images, likewise; suffixes may differ. None where ``input_dir`` holds both sides.
        out: made if it is missing.
        pairs: such as ``1-180``: only these, counted from 1 in the natural order of the names.
        skip_bad: leave out what cannot be used instead of raising.
        progress: show a bar.
        match: which clean image belongs to which rainy one, see ``files.name_rules``.
        pairs_file: a list of pairs, see ``files.pair_lists``.
        halves: a folder of files that hold a pair each, instead of the two folders.

    Returns:
        The two stores, the rule that made the pairs, and a sentence for each file that is not in them.

    Raises:
        InputError: see ``find_pairs`` and ``write_pair_stores``; nothing is left behind.
    """
    found = find_images(input_dir, target_dir, match, pairs_file, halves)
    found.keep(_select(list(found.inputs), pairs))
    keys = list(found.inputs)
    looked_at = keys[:: max(1, len(keys) // COMPARED)]
    if keys and all(_one_file(found.inputs[key], found.targets[found.target_of(key)]) for key in looked_at):
        raise InputError(
            f'input and target are one file in all of {len(looked_at)} pairs looked at, such as '
            f'{found.inputs[keys[0]]}; name the clean images as --target'
        )
    bar = partial(tqdm, unit='pair', desc=Path(out).name, disable=None if progress else True)
    stores, notes = write_pair_stores(found, out, bar, skip_bad)
    return stores, [f'matched by: {found.rule}, {found.told}', *(f'passed over {f}' for f in found.passed_over), *notes]


def _one_file(rainy: ImageFile, clean: ImageFile) -> bool:
    with contextlib.suppress(OSError, InputError):  # what cannot be read is named when it is stored
        return rainy.read_bytes() == clean.read_bytes()
    return False


def _select(stems: list[str], pairs: str | None) -> list[str]:
    if pairs is None:
        return stems
    match = re.fullmatch(r'(\d+)-(\d+)', pairs)
    first, last = map(int, match.groups()) if match else (0, 0)
    if not 1 <= first <= last <= len(stems):
        raise InputError(f'--pairs {pairs}: wanted FIRST-LAST within 1-{len(stems)}')
    return stems[first - 1 : last]


def find_images(
    input_dir: str | Path | None,
    target_dir: str | Path | None,
    match: str = AUTO,
    pairs_file: str | Path | None = None,
    halves: str | Path | None = None,
) -> Pairs:
    """Pair the images that the arguments of ``make_lmdb`` name; only names are read.

    Raises:
        InputError: no images, arguments that exclude each other, or what ``find_pairs`` refuses.
    """
    if halves is not None:
        if input_dir or target_dir or pairs_file:
            raise InputError('--halves stands for both sides; drop --input, --target and --pairs-file')
        return pair_halves(halves, match)
    if pairs_file is not None:
        if target_dir:
            raise InputError('--pairs-file names both sides; drop --target')
        return pair_list(pairs_file, input_dir)
    if input_dir:
        return find_pairs(input_dir, target_dir, match)
    raise InputError('no images given; name them with --input and --target, with --halves or with --pairs-file')


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say where the images of both sides are."""
    parser.add_argument('--input', metavar='DIR', help="rainy images: a folder, or 'DIR/rain-*.png' in quotes")
    parser.add_argument('--target', metavar='DIR', help='clean images, likewise (default: --input holds both sides)')
    parser.add_argument('--match', default=AUTO, choices=MATCHES, help='which clean image belongs to which rainy one')
    parser.add_argument('--halves', metavar='DIR', help='files that hold a pair each, instead of --input and --target')
    parser.add_argument('--clean', choices=('left', 'right'), help='the clean half of --halves (default: guessed)')
    parser.add_argument('--pairs-file', metavar='LIST', help='two paths a line, instead of --input and --target')
    parser.add_argument('--root', metavar='DIR', help='where the paths of LIST begin (default: beside LIST)')


def match_of(args: argparse.Namespace) -> str:
    """Return the rule that the arguments ask for.

    Raises:
        InputError: arguments that have no effect without another.
    """
    if args.root and not args.pairs_file:
        raise InputError('--root says where the paths of a list begin; name the list with --pairs-file')
    if not args.clean:
        return args.match
    if args.halves is None:
        raise InputError('--clean says which half is clean; name the files with --halves')
    return {'left': LEFT_CLEAN, 'right': RIGHT_CLEAN}[args.clean]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ddsa data lmdb`` to a parser."""
    add_sources(parser)
    parser.add_argument('--out', required=True, metavar='DIR', help='gets input.lmdb and target.lmdb')
    parser.add_argument('--pairs', metavar='FIRST-LAST', help='only these, in the natural order of the names')
    parser.add_argument('--skip-bad', action='store_true', help='leave out pairs that cannot be used, and name them')


def run(args: argparse.Namespace) -> int:
    """Make the stores and print what is in them."""
    start = time.perf_counter()
    stores, notes = make_lmdb(
        args.root or args.input,
        args.target,
        args.out,
        args.pairs,
        args.skip_bad,
        sys.stderr.isatty(),
        match_of(args),
        args.pairs_file,
        args.halves,
    )
    rows = [(s, len(read_entries(s)), f'{(s / "data.mdb").stat().st_size / MEBIBYTE:.1f}') for s in stores]
    print('\n'.join([markdown_table(rows, ('LMDB', 'images', 'MiB')), *notes]))
    print(f'made in {time.perf_counter() - start:.1f} s')
    return 0
