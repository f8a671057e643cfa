"""``ddsa data download``: fetch the two archives of Rain13K from Google Drive, and check them.

Sizes and hashes of Google's files are not known to us, so nothing tells that a file is the one the field used. What
is checked: the archive's list of entries can be read and none of them leads out of its folder, each set has as many
images as it should, and every entry matches the CRC that the archive itself carries for it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ddsa_arch.sets.download import download, next_command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to a parser."""
    parser.add_argument('which', nargs='*', metavar='ARCHIVE', help='train, test (default: both)')
    parser.add_argument('--out', required=True, metavar='DIR', help='gets train.zip and test.zip')


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    done = download(args.which, args.out, sys.stderr.isatty())
    print('\n'.join(f'{path}: {what}' for path, what in done.items()))
    print(f'next: {next_command(Path(args.out))}')
    return 0
