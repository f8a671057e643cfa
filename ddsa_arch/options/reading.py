"""Read option files as data: nothing in them is ever run.

A file is parsed first, by a loader that knows no objects; variables are put into the strings that came out, and files
that it inherits from are merged as the sections that they are. So no text that a file or a variable holds can become
code, or YAML of another shape.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ddsa_arch.errors import InputError, did_you_mean, shortened, shown
from ddsa_arch.options.finding import SUFFIXES, find_shipped, is_name
from ddsa_arch.options.schema import OPTIONS

BASE = '_base_'
DELETE = '_delete_'
VARIABLE = re.compile(r'\{\{\s*\$(\w+)\s*:\s*([^{}]*?)\s*\}\}')  # {{$NAME:default}}
OPENED = re.compile(r'\{\{|\}\}')
LARGEST_FILE = 2**20  # bytes; the project's largest has 5 thousand
DEEPEST = 32  # sections within each other
MOST_VALUES = 100_000  # of a file, aliases written out
LONGEST_CHAIN = 16  # files that inherit from each other
LONGEST_TEXT = 2000  # letters of one value
WHOLE_NUMBERS = 2**63  # beyond them nothing counts
OCTAL = re.compile(r'[-+]?0[0-7_]+')  # 010, which YAML 1.1 reads as 8
SEXAGESIMAL = re.compile(r'[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?')  # 1:30, which it reads as 90


class _StrictLoader(yaml.SafeLoader):
    """Executes nothing, and refuses a key that stands twice in one section, or is no word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):  # such as {{$NAME:default}} without quotes
                problem = "a section as a key; write '{{$NAME:default}}' in quotes"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(problem=f'{key.value!r} twice', problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        return int(self._as_written(node, super().construct_yaml_int(node)))

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        return self._as_written(node, super().construct_yaml_float(node))

    def _as_written(self, node: yaml.ScalarNode, value: float) -> float:
        """A number, unless YAML 1.1 reads it as another than a person does."""
        text = node.value
        if OCTAL.fullmatch(text):
            problem = f'{text} is the octal number 0o{text.lstrip("+-0") or 0}; write {_decimal(text)} or {value}'
        elif SEXAGESIMAL.fullmatch(text):
            problem = f'{text} is a number to the base of 60; write {value}, or {text!r} in quotes'
        else:
            return value
        raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)


for _tag, _construct in (('int', _StrictLoader.construct_yaml_int), ('float', _StrictLoader.construct_yaml_float)):
    _StrictLoader.add_constructor(f'tag:yaml.org,2002:{_tag}', _construct)


def _decimal(text: str) -> str:
    return text.replace('_', '').lstrip('+').replace('-', '').lstrip('0') or '0'


def read_options(path: str | Path, kind: str | None = None) -> dict[str, Any]:
    """The content of an option file with its ``_base_`` files merged in, unchecked.

    A section of a file is merged into that of the same name in its base, key by key; with ``_delete_: true`` it takes
    its place. All else, lists and ``~`` too, takes the place of what is inherited. Of several bases, later ones come
    over earlier ones.

    Args:
        path: the file, or the name of one that comes with the package.
        kind: ``train`` or ``test``: which of two shipped files of one name is meant.

    Raises:
        InputError: a file that is missing or no plain YAML, or that goes beyond the limits above.
    """
    return _without_switches(_merged(locate(path, kind), (), kind))


def locate(path: str | Path, kind: str | None = None, beside: Path = Path()) -> Path:
    """An option file: a path, or the name of one that comes with the package.

    Args:
        path: a file that is there comes before a name.
        kind: see ``read_options``.
        beside: the folder that a path is relative to.

    Raises:
        InputError: neither.
    """
    file = beside / path
    return find_shipped(str(path), kind) if is_name(str(path)) and not file.is_file() else file


def parse(text: str, where: str) -> Any:
    """YAML as plain data, with variables put into its strings.

    Raises:
        InputError: it is no plain YAML, or goes beyond the limits above.
    """
    try:
        content = yaml.load(text, _StrictLoader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError, OverflowError, AttributeError, LookupError, TypeError) as error:
        told = ' '.join(str(error).split()).replace(' in "<unicode string>",', ' in')  # tags on what is not of them
        raise InputError(
            f'{where}: not plain YAML: {told if isinstance(error, yaml.YAMLError) else shown(told)}'
        ) from error
    except RecursionError as error:
        raise InputError(f'{where}: not plain YAML: sections within sections without end') from error
    return _Plain(where).copy(content, '', 0)


class _Plain:
    """Copies parsed YAML, with variables put in, within the limits; an alias to what holds it goes too deep."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.values = 0

    def copy(self, value: Any, place: str, depth: int) -> Any:
        self.values += 1
        if depth > DEEPEST:
            raise InputError(f'{self.where}: {shortened(place)}: more than {DEEPEST} sections within each other')
        if self.values > MOST_VALUES:
            raise InputError(f'{self.where}: {shortened(place)}: more than {MOST_VALUES:,} values, aliases counted')
        if isinstance(value, dict):
            for key in value:
                if isinstance(key, bool):
                    raise InputError(
                        f'{self.where}: {_join(place, key)}: YAML reads yes, no, on and off as truth values; '
                        'write the key in quotes'
                    )
                if not isinstance(key, str):
                    hint = did_you_mean(shown(key), OPTIONS)
                    raise InputError(f'{self.where}: unknown key {_join(place, shown(key))}{hint}; keys are words')
                self._check_text(key, f'a key in {place or "the file"}')
            return {key: self.copy(entry, _join(place, key), depth + 1) for key, entry in value.items()}
        if isinstance(value, list):
            return [self.copy(entry, f'{place}[{i}]', depth + 1) for i, entry in enumerate(value)]
        if isinstance(value, str):
            text = self._with_variables(value, place)
            self._check_text(text, place)
            return text
        if isinstance(value, int) and not -WHOLE_NUMBERS <= value < WHOLE_NUMBERS:
            raise InputError(f'{self.where}: {place}: a number of {value.bit_length()} bits, wanted one below 2**63')
        if isinstance(value, bool | int | float) or value is None:
            return value
        raise InputError(f'{self.where}: {place}: {shown(value)} is a {type(value).__name__}; write it in quotes')

    def _check_text(self, text: str, place: str) -> None:
        """Refuse what no name, path or key can hold."""
        if len(text) > LONGEST_TEXT:
            raise InputError(
                f'{self.where}: {shortened(place)}: {shown(text)} has {len(text):,} letters, wanted at most '
                f'{LONGEST_TEXT:,}'
            )
        broken = [letter for letter in text if unicodedata.category(letter) in ('Cc', 'Cs')]
        if broken:
            raise InputError(
                f'{self.where}: {shortened(place)}: {shown(text)} holds the control character {broken[0]!r}; remove it'
            )

    def _with_variables(self, text: str, place: str) -> str:
        rest = VARIABLE.sub('', text)
        if OPENED.search(rest):
            raise InputError(
                f'{self.where}: {place}: {shortened(text)!r} holds braces that are no variable; '
                "wanted '{{$NAME:default}}'"
            )
        return VARIABLE.sub(lambda found: os.environ.get(found[1], found[2]), text)


def _merged(path: Path, chain: tuple[Path, ...], kind: str | None) -> dict[str, Any]:
    content = parse(_text(path, chain), str(path))
    if not isinstance(content, dict):
        raise InputError(f'{path}: holds {type(content).__name__}, wanted "key: value" lines')
    given = content.pop(BASE, [])
    bases = given if isinstance(given, list) else [given]
    if not all(isinstance(base, str) for base in bases):
        raise InputError(f'{path}: {BASE}: {shown(given)}, wanted a file or a list of files')
    merged: dict[str, Any] = {}
    for base in bases:
        try:
            inherited = locate(base, kind, path.parent)
        except InputError as error:
            raise InputError(f'{path}: {BASE}: {error}') from None
        merged = _over(merged, _merged(inherited, (*chain, path.resolve()), kind))
    return _over(merged, content)


def _text(path: Path, chain: tuple[Path, ...]) -> str:
    named_in = f', named by {BASE} in {chain[-1]}' if chain else ''
    try:
        if path.resolve() in chain:
            raise InputError(f'{path}: {BASE} leads back to itself')
        if path.suffix not in SUFFIXES or not path.is_file():
            raise InputError(f'no option file {path}{named_in} (a .yml file)')
        if len(chain) >= LONGEST_CHAIN:
            raise InputError(f'{path}: more than {LONGEST_CHAIN} files inherit from each other')
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(f'{path}: larger than {LARGEST_FILE >> 20} MiB, which no option file is')
        return path.read_text(encoding='utf-8-sig')
    except InputError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(f'{path}: not plain YAML: its encoding is not UTF-8; save it as UTF-8') from error
    except (OSError, RuntimeError, ValueError) as error:  # such as links in a circle, or names that no disk takes
        raise InputError(f'no option file {shortened(str(path))!r}{named_in}: {error}') from error


def _over(base: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    """The base with the child's values over it."""
    merged = dict(base)
    for key, value in child.items():
        inherited = merged.get(key)
        if isinstance(value, dict) and isinstance(inherited, dict) and value.get(DELETE) is not True:
            merged[key] = _over(inherited, value)
        else:
            merged[key] = value
    return merged


def _without_switches(value: Any) -> Any:
    """Without the keys ``_delete_``, which have done their work."""
    if isinstance(value, dict):
        return {key: _without_switches(entry) for key, entry in value.items() if key != DELETE}
    return [_without_switches(entry) for entry in value] if isinstance(value, list) else value


def _join(where: str, name: Any) -> str:
    return f'{where}.{name}' if where else str(name)
