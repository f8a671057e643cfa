"""``ddsa options``: show an option file resolved, or write the reference of all keys for readers or for editors."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ddsa_arch.options.json_schema import json_schema
from ddsa_arch.options.loading import load_options, to_yaml
from ddsa_arch.options.reading import read_options
from ddsa_arch.options.reference import reference


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='ddsa options', description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    show = commands.add_parser('show', help='print an option file with everything resolved')
    show.add_argument('file')
    show.add_argument('--force_yml', nargs='+', default=[], metavar='SECTION:KEY=VALUE')
    commands.add_parser('readme', help='print the reference of all keys')
    commands.add_parser('schema', help='print a JSON Schema of option files, for editors')
    args = parser.parse_args(argv)
    if args.command == 'schema':
        print(json_schema(), end='')
        return 0
    if args.command == 'readme':
        print(reference(), end='')
        return 0
    is_train = 'train' in read_options(args.file)
    print(to_yaml(load_options(args.file, is_train, args.force_yml)), end='')
    return 0
