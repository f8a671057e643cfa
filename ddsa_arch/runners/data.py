"""``ddsa data``: everything about sets of image pairs, from the download to verified LMDBs."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ddsa_arch.errors import InputError
from ddsa_arch.files.images import ImageFile, files_in
from ddsa_arch.files.lmdb_store import is_store, read_entries
from ddsa_arch.files.matching import SIDES, pair_files
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
    input_dir: str | Path,
    target_dir: str | Path,
    out: str | Path,
    pairs: str | None = None,
    skip_bad: bool = False,
    progress: bool = False,
) -> tuple[tuple[Path, Path], list[str]]:
    """Make ``out/input.lmdb`` and ``out/target.lmdb`` from two folders of images paired by stem.

    Args:
        input_dir: rainy images.
        target_dir: clean images; suffixes may differ between the folders.
        out: made if it is missing.
        pairs: such as ``1-180``: only these, counted from 1 in the natural order of the names.
        skip_bad: leave out what cannot be used instead of raising.
        progress: show a bar.

    Returns:
        The two stores, and a sentence for each file that is not in them.

    Raises:
        InputError: see ``pair_files`` and ``write_pair_stores``; nothing is left behind.
    """
    if os.path.realpath(input_dir) == os.path.realpath(target_dir):
        raise InputError(f'--input and --target are both {input_dir}; name the clean images as --target')
    found = pair_files(
        files_in(input_dir, '--input'), files_in(target_dir, '--target'), str(input_dir), str(target_dir)
    )
    stems = _select(list(found.inputs), pairs)
    found.inputs = {stem: found.inputs[stem] for stem in stems}
    found.targets = {stem: found.targets[stem] for stem in stems}
    looked_at = stems[:: max(1, len(stems) // COMPARED)]
    if stems and all(_one_file(found.inputs[stem], found.targets[stem]) for stem in looked_at):
        raise InputError(
            f'{input_dir} and {target_dir}: input and target are one file in all of {len(looked_at)} pairs looked at; '
            'name the clean images as --target'
        )
    bar = partial(tqdm, unit='pair', desc=Path(out).name, disable=None if progress else True)
    stores, notes = write_pair_stores(found, out, bar, skip_bad)
    return stores, [f'passed over {file}' for file in found.passed_over] + notes


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


def verify(paths: Sequence[str | Path], progress: bool = False) -> tuple[list[tuple[Path, int]], list[str]]:
    """Check stores: counts, meta_info.txt against the database, every image, and the two sides of a set.

    Args:
        paths: stores ``X.lmdb``, or folders with ``input.lmdb`` and ``target.lmdb``.
        progress: show a bar.

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
            problems += pair_problems(*pair)
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

    lmdb = commands.add_parser('lmdb', help='two folders of images to two LMDBs')
    lmdb.add_argument('--input', required=True, metavar='DIR', help='rainy images')
    lmdb.add_argument('--target', required=True, metavar='DIR', help='clean images of the same names')
    lmdb.add_argument('--out', required=True, metavar='DIR', help='gets input.lmdb and target.lmdb')
    lmdb.add_argument('--pairs', metavar='FIRST-LAST', help='only these, in the natural order of the names')
    lmdb.add_argument('--skip-bad', action='store_true', help='leave out pairs that cannot be used, and name them')
    lmdb.set_defaults(run=_run_lmdb)

    check = commands.add_parser('verify', help='check LMDBs; exit code 1 names what is wrong')
    check.add_argument('paths', nargs='+', metavar='LMDB', help='X.lmdb, or a folder with input.lmdb and target.lmdb')
    check.set_defaults(run=_run_verify)
    return top


def _run_lmdb(args: argparse.Namespace) -> int:
    start = time.perf_counter()
    shown = sys.stderr.isatty()
    stores, notes = make_lmdb(args.input, args.target, args.out, args.pairs, args.skip_bad, shown)
    rows = [(s, len(read_entries(s)), f'{(s / "data.mdb").stat().st_size / MEBIBYTE:.1f}') for s in stores]
    print('\n'.join([markdown_table(rows, ('LMDB', 'images', 'MiB')), *notes]))
    print(f'made in {time.perf_counter() - start:.1f} s')
    return 0


def _run_verify(args: argparse.Namespace) -> int:
    counts, problems = verify(args.paths, sys.stderr.isatty())
    print('\n'.join(problems) or markdown_table(counts, ('sound LMDB', 'images')))
    return 1 if problems else 0


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return args.run(args)
