"""``ddsa data lmdb``: make the LMDBs of a set of image pairs."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ddsa_arch.ops.errors import InputError
from ddsa_arch.ops.images import check_partners, images_by_stem
from ddsa_arch.ops.lmdb_store import write_pair_stores
from ddsa_arch.ops.tables import markdown_table

MEBIBYTE = 1 << 20


def make_lmdb(
    input_dir: str | Path, target_dir: str | Path, out: str | Path, pairs: str | None = None, progress: bool = False
) -> tuple[Path, Path]:
    """Make ``out/input.lmdb`` and ``out/target.lmdb`` from two folders of images paired by stem.

    Args:
        input_dir: rainy images.
        target_dir: clean images; suffixes may differ between the folders.
        out: made if it is missing.
        pairs: such as ``1-180``: only these, counted from 1 in the natural order of the names.
        progress: show a bar.

    Raises:
        InputError: see ``write_pair_stores``; nothing is left behind.
    """
    inputs = images_by_stem(input_dir, '--input')
    targets = images_by_stem(target_dir, '--target')
    check_partners(inputs, targets, str(input_dir), str(target_dir))
    stems = _select(list(inputs), pairs)
    bar = partial(tqdm, unit='pair', desc=Path(out).name, disable=None if progress else True)
    return write_pair_stores({s: inputs[s] for s in stems}, {s: targets[s] for s in stems}, out, bar)


def _select(stems: list[str], pairs: str | None) -> list[str]:
    if pairs is None:
        return stems
    match = re.fullmatch(r'(\d+)-(\d+)', pairs)
    first, last = map(int, match.groups()) if match else (0, 0)
    if not 1 <= first <= last <= len(stems):
        raise InputError(f'--pairs {pairs}: wanted FIRST-LAST within 1-{len(stems)}')
    return stems[first - 1 : last]


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog='ddsa data', description=__doc__)
    commands = top.add_subparsers(dest='command', required=True)
    lmdb = commands.add_parser('lmdb', help='two folders of images to two LMDBs')
    lmdb.add_argument('--input', required=True, metavar='DIR', help='rainy images')
    lmdb.add_argument('--target', required=True, metavar='DIR', help='clean images of the same names')
    lmdb.add_argument('--out', required=True, metavar='DIR', help='gets input.lmdb and target.lmdb')
    lmdb.add_argument('--pairs', metavar='FIRST-LAST', help='only these, in the natural order of the names')
    return top


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    start = time.perf_counter()
    stores = make_lmdb(args.input, args.target, args.out, args.pairs, progress=sys.stderr.isatty())
    seconds = time.perf_counter() - start
    rows = [
        (
            store,
            len((store / 'meta_info.txt').read_text(encoding='utf-8').splitlines()),
            f'{(store / "data.mdb").stat().st_size / MEBIBYTE:.1f}',
        )
        for store in stores
    ]
    print(markdown_table(rows, ('LMDB', 'images', 'MiB')))
    print(f'made in {seconds:.1f} s')
    return 0
