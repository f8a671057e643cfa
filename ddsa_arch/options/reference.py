"""The page of all keys of an option file, options/README.md."""

from __future__ import annotations

from ddsa_arch.options.schema import OPTIONS, RANGES, REQUIRED, Key, Named, Part, Section


def reference() -> str:
    """options/README.md: every key with its meaning, unit and default."""
    lines = [
        '# Options',
        '',
        'Every key of an option file. Written by `ddsa options readme > options/README.md`; edit',
        '`ddsa_arch/options/schema.py` instead.',
        '',
        '`ddsa options schema > schema.json` writes them as a JSON Schema, to any place. With it an editor that has',
        'the YAML language server completes and checks a file whose first line is',
        '`# yaml-language-server: $schema=PATH_TO/schema.json`. A file with `imports` may name its own parts.',
        '',
        '`_base_: FILE` inherits from another file, whose path is relative to this one, or from an option file of',
        'the package by its name, such as `_base_: train/DDSANet_Rain13K` (`ddsa options list` names them); a list of',
        'them is taken too. `_delete_: true` inside a section drops what it would inherit, `~` for a set or a metric',
        "drops that one, `'{{$NAME:default}}'` takes an environment variable, and `--force_yml SECTION.KEY=VALUE` has",
        'the last word. Numbers may be written as `1e-4`, and none begins with a needless 0. Paths are relative to',
        'where the command runs.',
        '',
        '| key | type | default | meaning |',
        '| --- | --- | --- | --- |',
    ]
    arguments = [
        '',
        'The arguments of a part are those of its class. These are within bounds, whatever the part:',
        '',
        '| part | argument | numbers |',
        '| --- | --- | --- |',
        *(
            f'| {registry} | `{name}` | {numbers}{f" ({numbers.count} of them)" if numbers.count else ""} |'
            for registry, ranges in RANGES.items()
            for name, numbers in ranges.items()
        ),
    ]
    return '\n'.join([*lines, *_reference_rows(OPTIONS, ''), *arguments]) + '\n'


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
    bounds = f', {key.range}' if str(key.range) else ''
    numbers = [k.__name__ + bounds for k in key.kinds if k is not str]
    if key.choices and str in key.kinds:
        return ' or '.join([*numbers, ', '.join(key.choices)])
    return ', '.join(map(str, key.choices)) or ' or '.join(k.__name__ for k in key.kinds) + bounds
