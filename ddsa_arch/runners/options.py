"""``ddsa options``: list, copy or show the option files of the package, and print the reference of all keys."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ddsa_arch.options.finding import copy_shipped, described, shipped_names
from ddsa_arch.options.json_schema import json_schema
from ddsa_arch.options.loading import is_of_training, load_options, to_yaml
from ddsa_arch.options.reading import read_options
from ddsa_arch.options.reference import reference


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='ddsa options', description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    listing = commands.add_parser('list', help='name the option files that come with the package')
    listing.add_argument('words', nargs='*', help='only those whose name or description has these words')
    copy = commands.add_parser('copy', help='copy one of them into a folder, to change it')
    copy.add_argument('name')
    copy.add_argument('-o', '--out', default='.', metavar='DIR', help='(default: the current directory)')
    show = commands.add_parser('show', help='print an option file with everything resolved')
    show.add_argument('file', help='or the name of one that comes with the package')
    show.add_argument('--force_yml', '--force-yml', nargs='+', default=[], metavar='SECTION:KEY=VALUE')
    commands.add_parser('readme', help='print the reference of all keys')
    commands.add_parser('schema', help='print a JSON Schema of option files, for editors')
    args = parser.parse_args(argv)
    if args.command == 'schema':
        print(json_schema(), end='')
        return 0
    if args.command == 'readme':
        print(reference(), end='')
        return 0
    if args.command == 'list':
        return _list(args.words)
    if args.command == 'copy':
        print(copy_shipped(args.name, args.out))
        return 0
    options = read_options(args.file)
    print(to_yaml(load_options(args.file, is_of_training(options), args.force_yml)), end='')
    return 0


def _list(words: Sequence[str]) -> int:
    told = {name: described(path) for name, path in shipped_names().items()}
    found = {k: v for k, v in told.items() if all(word.lower() in f'{k} {v}'.lower() for word in words)}
    width = max(map(len, found), default=0)
    print('\n'.join(f'{name:{width}}  {sentence}' for name, sentence in found.items()) or 'none has these words')
    return 0 if found else 1
