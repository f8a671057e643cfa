"""``ddsa options``: show an option file resolved, or write the reference of all keys for readers or for editors."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ddsa_arch.runners.json_schema import json_schema
from ddsa_arch.runners.option_files import load_options, read_options
from ddsa_arch.runners.schema import OPTIONS, REQUIRED, Key, Named, Part, Section


def to_yaml(options: Mapping[str, Any]) -> str:
    """Options as plain YAML, in their order."""
    return yaml.safe_dump(dict(options), sort_keys=False, allow_unicode=True, width=120)


def reference() -> str:
    """options/README.md: every key with its meaning, unit and default."""
    lines = [
        '# Options',
        '',
        'Every key of an option file. Written by `ddsa options readme > options/README.md`; edit',
        '`ddsa_arch/runners/schema.py` instead.',
        '',
        '`ddsa options schema > options/schema.json` writes them as a JSON Schema. With it an editor that has the YAML',
        'language server completes and checks a file whose first line is',
        '`# yaml-language-server: $schema=PATH_TO/options/schema.json`. A file with `imports` may name its own parts.',
        '',
        '`_base_: FILE` inherits from another file, `_delete_: true` inside a section drops what it would inherit,',
        '`~` for a set or a metric drops that one,',
        "`'{{$NAME:default}}'` takes an environment variable, and `--force_yml SECTION:KEY=VALUE` has the last word.",
        'Numbers may be written as `1e-4`. Paths are relative to where the command runs.',
        '',
        '| key | type | default | meaning |',
        '| --- | --- | --- | --- |',
    ]
    return '\n'.join([*lines, *_reference_rows(OPTIONS, '')]) + '\n'


def _reference_rows(section: Section, where: str) -> list[str]:
    rows = []
    for name, entry in section.items():
        place = f'{where}.{name}' if where else name
        if isinstance(entry, Key):
            if entry.doc == 'Set by the loader.':
                continue
            default = 'required' if entry.default is REQUIRED else '' if entry.default is None else f'`{entry.default}`'
            kind = _kind(entry)
            unit = f' In {entry.unit}.' if entry.unit else ''
            rows.append(f'| `{place}` | {kind} | {default} | {entry.doc}{unit} |')
        elif isinstance(entry, Part):
            rows.append(f'| `{place}` | {entry.registry} | {"required" if entry.required else ""} | {entry.doc} |')
        elif isinstance(entry, Named):
            rows.append(f'| `{place}` | section | | {entry.doc} |')
            if isinstance(entry.content, Part):
                rows.append(f'| `{place}.NAME` | {entry.content.registry} | | {entry.content.doc} |')
            else:
                rows += _reference_rows(entry.content, f'{place}.NAME')
        else:
            rows += _reference_rows(entry, place)
    return rows


def _kind(key: Key) -> str:
    numbers = [k.__name__ for k in key.kinds if k is not str]
    if key.choices and str in key.kinds:
        return ' or '.join([*numbers, ', '.join(key.choices)])
    return ', '.join(map(str, key.choices)) or ' or '.join(k.__name__ for k in key.kinds)


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
