"""``ddsa data``: everything about sets of image pairs, from the download to verified LMDBs."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ddsa_arch.errors import InputError
from ddsa_arch.files.images import ImageFile
from ddsa_arch.files.lmdb_store import is_store, read_entries
from ddsa_arch.files.matching import SIDES
from ddsa_arch.files.name_rules import AUTO, KEY_RULES, LEFT_CLEAN, MATCHES, RIGHT_CLEAN
from ddsa_arch.files.one_folder import pair_halves
from ddsa_arch.files.pair_lists import pair_list
from ddsa_arch.files.pair_sources import find_pairs
from ddsa_arch.files.tables import markdown_table
from ddsa_arch.runners import data_audit, data_download, data_prepare, data_speed, data_synth
from ddsa_arch.sets.pair_stores import write_pair_stores
from ddsa_arch.sets.verify import pair_problems, store_problems

MEBIBYTE = 1 << 20
COMPARED = 32  # pairs whose two files are compared before the work
MODULES = (
    ('download', data_download, 'the archives of the field, from Google Drive'),
    ('prepare', data_prepare, 'the archives of the field to LMDBs, verified'),
    ('synth', data_synth, 'render rain on clean photos, or a sheet of samples'),
    ('audit', data_audit, 'test images in the training data, duplicates, faulty pairs'),
    ('speed', data_speed, 'how fast sets are read for training'),
)


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
    if halves is not None:
        if input_dir or target_dir or pairs_file:
            raise InputError('--halves stands for both sides; drop --input, --target and --pairs-file')
        found = pair_halves(halves, match)
    elif pairs_file is not None:
        if target_dir:
            raise InputError('--pairs-file names both sides; drop --target')
        found = pair_list(pairs_file, input_dir)
    elif input_dir:
        found = find_pairs(input_dir, target_dir, match)
    else:
        raise InputError('no images given; name them with --input and --target, with --halves or with --pairs-file')
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


def verify(
    paths: Sequence[str | Path], progress: bool = False, match: str = AUTO
) -> tuple[list[tuple[Path, int]], list[str]]:
    """Check stores: counts, meta_info.txt against the database, every image, and the two sides of a set.

    Args:
        paths: stores ``X.lmdb``, or folders with ``input.lmdb`` and ``target.lmdb``.
        progress: show a bar.
        match: the rule for the keys of the two sides, see ``files.name_rules``.

    Returns:
        The stores with the number of their images, and all that is wrong, one sentence each.

    Raises:
        InputError: a path that is neither.
    """
    stores, problems = [], []
    for path in map(Path, paths):
        pair = [path / f'{side}.lmdb' for side in SIDES]
        if is_store(path):
            stores.append(path)
        elif any(store.is_dir() for store in pair):
            stores += pair
            problems += pair_problems(pair[0], pair[1], match)
        else:
            raise InputError(f'{path}: neither an X.lmdb nor a folder with input.lmdb and target.lmdb')
    counts = []
    for store in stores:
        found = store_problems(store, partial(tqdm, unit='image', desc=str(store), disable=None if progress else True))
        counts.append((store, len(read_entries(store)) if not found else 0))
        problems += found
    return counts, problems


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog='ddsa data', description=__doc__)
    commands = top.add_subparsers(dest='command', required=True)
    for name, module, meaning in MODULES:
        command = commands.add_parser(name, help=meaning, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)

    lmdb = commands.add_parser('lmdb', help='image files to two LMDBs')
    lmdb.add_argument('--input', metavar='DIR', help="rainy images: a folder, or 'DIR/rain-*.png' in quotes")
    lmdb.add_argument('--target', metavar='DIR', help='clean images, likewise (default: --input holds both sides)')
    lmdb.add_argument('--match', default=AUTO, choices=MATCHES, help='which clean image belongs to which rainy one')
    lmdb.add_argument('--halves', metavar='DIR', help='files that hold a pair each, instead of --input and --target')
    lmdb.add_argument('--clean', choices=('left', 'right'), help='the clean half of --halves (default: guessed)')
    lmdb.add_argument('--pairs-file', metavar='LIST', help='two paths a line, instead of --input and --target')
    lmdb.add_argument('--root', metavar='DIR', help='where the paths of LIST begin (default: beside LIST)')
    lmdb.add_argument('--out', required=True, metavar='DIR', help='gets input.lmdb and target.lmdb')
    lmdb.add_argument('--pairs', metavar='FIRST-LAST', help='only these, in the natural order of the names')
    lmdb.add_argument('--skip-bad', action='store_true', help='leave out pairs that cannot be used, and name them')
    lmdb.set_defaults(run=_run_lmdb)

    check = commands.add_parser('verify', help='check LMDBs; exit code 1 names what is wrong')
    check.add_argument('paths', nargs='+', metavar='LMDB', help='X.lmdb, or a folder with input.lmdb and target.lmdb')
    check.add_argument('--match', default=AUTO, choices=KEY_RULES, help='rule for the keys of the two sides')
    check.set_defaults(run=_run_verify)
    return top


def _run_lmdb(args: argparse.Namespace) -> int:
    start = time.perf_counter()
    shown = sys.stderr.isatty()
    match = args.match
    if args.clean:
        if args.halves is None:
            raise InputError('--clean says which half is clean; name the files with --halves')
        match = {'left': LEFT_CLEAN, 'right': RIGHT_CLEAN}[args.clean]
    if args.root and not args.pairs_file:
        raise InputError('--root says where the paths of a list begin; name the list with --pairs-file')
    stores, notes = make_lmdb(
        args.root or args.input,
        args.target,
        args.out,
        args.pairs,
        args.skip_bad,
        shown,
        match,
        args.pairs_file,
        args.halves,
    )
    rows = [(s, len(read_entries(s)), f'{(s / "data.mdb").stat().st_size / MEBIBYTE:.1f}') for s in stores]
    print('\n'.join([markdown_table(rows, ('LMDB', 'images', 'MiB')), *notes]))
    print(f'made in {time.perf_counter() - start:.1f} s')
    return 0


def _run_verify(args: argparse.Namespace) -> int:
    counts, problems = verify(args.paths, sys.stderr.isatty(), args.match)
    print('\n'.join(problems) or markdown_table(counts, ('sound LMDB', 'images')))
    return 1 if problems else 0


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return args.run(args)
