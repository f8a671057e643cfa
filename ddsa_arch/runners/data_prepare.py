"""``ddsa data prepare``: from the downloaded archives or folders to verified LMDBs, in one command."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from ddsa_arch.sets.benchmarks import BENCHMARKS
from ddsa_arch.sets.prepare import TABLE_NAME, prepare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--root', required=True, metavar='DIR', help='what was downloaded: a folder, or a zip archive')
    parser.add_argument('--out', default='datasets', metavar='DIR', help='gets SET/input.lmdb ... (default: datasets)')
    parser.add_argument(
        '--sets', nargs='+', default=(), metavar='SET', help=f'of {", ".join(BENCHMARKS)} (default: all found)'
    )
    parser.add_argument('--skip-bad', action='store_true', help='leave out pairs that cannot be used, and name them')
    parser.add_argument('--any-count', action='store_true', help='take a set with another number of pairs than known')


def run(args: argparse.Namespace) -> int:
    prepare(
        args.root,
        args.out,
        args.sets,
        args.skip_bad,
        args.any_count,
        report=partial(print, flush=True),
        progress=sys.stderr.isatty(),
    )
    print(f'the LMDBs and {TABLE_NAME} lie in {args.out}')
    return 0
