"""``ddsa data verify``: check sets of image pairs, as LMDBs or as files; exit code 1 names what is wrong."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ddsa_arch.errors import InputError
from ddsa_arch.files.lmdb_store import is_store, read_entries
from ddsa_arch.files.matching import SIDES
from ddsa_arch.files.name_rules import AUTO, KEY_RULES
from ddsa_arch.files.pair_sources import find_pairs
from ddsa_arch.files.tables import markdown_table
from ddsa_arch.runners.data_lmdb import add_sources, find_images, match_of
from ddsa_arch.sets.verify import file_problems, pair_problems, store_problems


def verify(
    paths: Sequence[str | Path], progress: bool = False, match: str = AUTO
) -> tuple[list[tuple[Path, int]], list[str]]:
    """Check sets: counts, every image, and the two sides; of stores meta_info.txt against the database too.

    Args:
        paths: stores ``X.lmdb``, folders with ``input.lmdb`` and ``target.lmdb``, or folders of images as
            ``find_pairs`` takes them.
        progress: show a bar.
        match: the rule for the names of the two sides, see ``files.name_rules``.

    Returns:
        The stores and folders with the number of their images, and all that is wrong, one sentence each.

    Raises:
        InputError: a path that is none of these.
    """
    counts: list[tuple[Path, int]] = []
    problems: list[str] = []
    for path in map(Path, paths):
        stores = [path / f'{side}.lmdb' for side in SIDES]
        if is_store(path):
            stores = [path]
        elif any(store.is_dir() for store in stores):
            if match not in KEY_RULES:
                raise InputError(f'--match {match} is a rule for files; {path} holds LMDBs: {", ".join(KEY_RULES)}')
            problems += pair_problems(stores[0], stores[1], match)
        elif path.is_dir():
            found = find_pairs(path, None, match, roles=('verify', 'verify'))
            problems += file_problems(found, _bar(path, progress))
            counts.append((path, len(found.inputs)))
            continue
        else:
            raise InputError(f'{path}: no X.lmdb, no folder with input.lmdb and target.lmdb, and no folder of images')
        for store in stores:
            wrong = store_problems(store, _bar(store, progress))
            counts.append((store, len(read_entries(store)) if not wrong else 0))
            problems += wrong
    return counts, problems


def _bar(path: Path, progress: bool) -> partial:
    return partial(tqdm, unit='image', desc=str(path), disable=None if progress else True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ddsa data verify`` to a parser."""
    meaning = 'X.lmdb, a folder with input.lmdb and target.lmdb, or a folder of images of both sides'
    parser.add_argument('paths', nargs='*', metavar='SET', help=meaning)
    add_sources(parser)


def run(args: argparse.Namespace) -> int:
    """Check what is named and print it; 1 if anything is wrong."""
    shown, match = sys.stderr.isatty(), match_of(args)
    given = args.input or args.halves or args.pairs_file
    if not (args.paths or given):
        raise InputError('nothing to check; name sets, or images with --input and --target, --halves or --pairs-file')
    counts, problems = verify(args.paths, shown, match)
    if given:
        found = find_images(args.root or args.input, args.target, match, args.pairs_file, args.halves)
        problems += file_problems(found, _bar(Path(given), shown))
        counts.append((Path(given), len(found.inputs)))
    print('\n'.join(problems) or markdown_table(counts, ('sound', 'images or pairs')))
    return 1 if problems else 0
