"""A JSON Schema of option files, with which an editor completes and checks them: options/schema.json.

Draft 7, the newest one that the YAML language server takes in full. It is looser than the loader in one thing, as a
file is seen alone: what ``_base_`` may bring is not asked for. And it is stricter in one: a section that leaves the
``type`` of a part to its base takes the arguments of the registered parts alone, unless the file has ``imports``.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterable
from inspect import Parameter, getdoc
from typing import Any

from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY

from ddsa_arch.options.loading import LOADER_KEYS, YAML_SWITCHES
from ddsa_arch.options.parts import PART_SOURCES, argument_range, part_parameters, wanted_types
from ddsa_arch.options.reading import BASE, DELETE
from ddsa_arch.options.schema import (
    CHOICES,
    DATASET,
    OPTIONS,
    PART_OF_MIXTURE,
    REQUIRED,
    Key,
    Named,
    Part,
    Range,
    Section,
)

DRAFT = 'http://json-schema.org/draft-07/schema#'
PACKAGES = ('basicsr', 'mmengine', 'torch')  # whose parts and arguments the schema lists
OWN = 'ddsa_arch'
LINE = 120
SET_BY_LOADER = 'Set by the loader.'
EXPONENT = r'^[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+$'  # YAML 1.1 reads 1e-4 as a string
PLACEHOLDER = r'\{\{\s*\$\w+\s*:.*\}\}'  # {{$NAME:default}}
JSON_NAMES = {
    str: 'string', int: 'integer', float: 'number', bool: 'boolean', list: 'array', dict: 'object', type(None): 'null'
}  # fmt: skip

Schema = dict[str, Any]


def json_schema() -> str:
    """The text of options/schema.json."""
    return _text(_root(), 0) + '\n'


def _text(value: Any, indent: int) -> str:
    """JSON on one line where it fits: the file is read by people too."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) + indent <= LINE or not isinstance(value, dict | list) or not value:
        return text
    start, end = '{}' if isinstance(value, dict) else '[]'
    keys = [f'{json.dumps(key)}: ' for key in value] if isinstance(value, dict) else [''] * len(value)
    entries = value.values() if isinstance(value, dict) else value
    lines = [f'{" " * (indent + 1)}{k}{_text(v, indent + 1)}' for k, v in zip(keys, entries, strict=True)]
    return f'{start}\n' + ',\n'.join(lines) + f'\n{" " * indent}{end}'


def versions() -> str:
    """The packages that the schema depends on, as it names them."""
    return ', '.join(f'{name} {importlib.metadata.version(name).split("+")[0]}' for name in PACKAGES)


def _root() -> Schema:
    bases = {'type': ['string', 'array'], 'items': {'type': 'string'}}
    described = {BASE: {'description': 'File or files that this one inherits from, relative to it.', **bases}}
    complete = _complete(OPTIONS)
    complete['required'].append('datasets')  # one set at least, train or test
    return {
        '$schema': DRAFT,
        '$comment': f'Written by `ddsa options schema > options/schema.json` with {versions()}.',
        'title': 'Option file of ddsa_arch',
        'type': 'object',
        'properties': described | {name: _entry(entry) for name, entry in OPTIONS.items()},
        'additionalProperties': False,
        'allOf': [
            {'if': {'not': {'required': [BASE]}}, 'then': complete},
            {'if': {'not': {'required': ['imports']}}, 'then': _registered(OPTIONS)},
        ],
        'definitions': {
            'dataset': _dataset(DATASET),
            'part_of_mixture': _dataset(PART_OF_MIXTURE),
            'listed_part_of_mixture': _dataset({**PART_OF_MIXTURE, **DATASET}) | {'required': ['name']},
        }
        | _parts(),
    }


# --- values and sections -----------------------------------------------------------------------------------


def _entry(entry: Key | Part | Named | Section) -> Schema:
    if isinstance(entry, Key):
        return _value(entry)
    if isinstance(entry, Part):
        part = _one_or_many(entry, {'$ref': f'#/definitions/{entry.registry}'})
        types = ['object', *(['array'] if entry.many else []), *([] if entry.required else ['null'])]
        return {'description': entry.doc} | _typed(types) | {'allOf': [part]}
    if isinstance(entry, Named):
        return _named(entry)
    properties = {name: _entry(inner) for name, inner in entry.items()}
    return _inheriting({'type': ['object', 'null'], 'properties': properties, 'additionalProperties': False}, entry)


def _value(key: Key) -> Schema:
    """What a Key allows; absent and null are the same, but for what is required."""
    unit = f' In {key.unit}.' if key.unit else ''
    schema: Schema = {'description': key.doc + unit}
    if key.doc == SET_BY_LOADER:
        schema['doNotSuggest'] = True
    if key.default not in (REQUIRED, None):
        schema['default'] = key.default
    null = [] if key.default is REQUIRED else [None]
    switches = [truth for truth, word in YAML_SWITCHES.items() if word in key.choices]
    numbers = [k for k in key.kinds if k in (int, float)]
    if not key.choices:
        return schema | _typed([JSON_NAMES[k] for k in key.kinds] + ['null' for _ in null], key.range)
    if str not in key.kinds:
        return schema | {'enum': [*key.choices, *null]}
    words = [{'enum': [*key.choices, *switches, *null]}, {'type': 'string', 'pattern': PLACEHOLDER}]
    return schema | {'anyOf': [*([_typed([JSON_NAMES[k] for k in numbers], key.range)] if numbers else []), *words]}


def _typed(types: list[str], numbers: Range = Range()) -> Schema:  # noqa: B008 (frozen)
    schema: Schema = {'type': types if len(types) > 1 else types[0]}
    if {'integer', 'number'} & set(types) and 'string' not in types:
        schema = {'type': [*types, 'string'], 'pattern': EXPONENT}
    bounds = numbers.json()
    if bounds and 'array' in types:
        count = {} if numbers.count is None else {'minItems': numbers.count, 'maxItems': numbers.count}
        return schema | {'items': bounds} | count
    return schema | bounds


def _named(named: Named) -> Schema:
    reference = named.content.registry if isinstance(named.content, Part) else 'dataset'
    properties: Schema = {}
    if named.content is DATASET:
        properties['train'] = _or_list({'$ref': '#/definitions/dataset'})
    if named.content is PART_OF_MIXTURE:
        reference = 'part_of_mixture'
    schema = _inheriting(
        {
            'description': named.doc,
            'type': ['object', 'null'],
            'properties': properties,
            'patternProperties': {_pattern(named, *properties): {'$ref': f'#/definitions/{reference}'}},
            'additionalProperties': False,
        },
        named,
    )
    return {'description': named.doc} | _or_list(schema) if named.content is PART_OF_MIXTURE else schema


def _or_list(schema: Schema) -> Schema:
    """The sets of a mixture: a section, or a list of sets that say their names."""
    listed = {'items': {'$ref': '#/definitions/listed_part_of_mixture'}}
    return {'if': {'type': 'array'}, 'then': listed, 'else': schema}


def _pattern(named: Named, *but: str) -> str:
    return f'^(?!({"|".join([DELETE, *but])})$)({named.pattern})$'


def _inheriting(schema: Schema, entry: Any) -> Schema:
    """A section that may drop what it inherits, and is then asked for all that it needs."""
    deleted = {'properties': {DELETE: {'const': True}}, 'required': [DELETE]}
    schema['properties'][DELETE] = {'type': 'boolean', 'description': 'Drop what this section would inherit.'}
    complete = _complete(entry)
    if complete:
        schema['allOf'] = [*schema.get('allOf', []), {'if': deleted, 'then': complete}]
    return schema


def _dataset(section_of: Section) -> Schema:
    """An image set by itself, or one of a mixture, which has a weight and no keys of loaders."""
    ours = [name for name, kind in DATASET_REGISTRY if kind.__module__.startswith(f'{OWN}.')]
    entries = {name: _entry(entry) for name, entry in section_of.items()}
    common = {name: entries[name] for name in (*LOADER_KEYS, 'type') if name in entries}
    common['type'] = {k: v for k, v in common['type'].items() if k not in ('type', 'pattern')} | _names(ours)
    others = {name: True if name in common else entry for name, entry in entries.items()}
    section: Schema = {'type': ['object', 'null'], 'properties': common}
    section['allOf'] = [
        {
            'if': {'properties': {'type': {'enum': sorted(ours)}}},  # or no type: data sets of others take other keys
            'then': {'properties': others | {DELETE: True}, 'additionalProperties': False},
        }
    ]
    return _inheriting(section, section_of)


# --- parts -------------------------------------------------------------------------------------------------


def _parts() -> Schema:
    """Three definitions for each registry: a section, what a whole one needs, and one of registered names alone."""
    definitions = {}
    for registry, source in PART_SOURCES.items():
        names = _known(source)
        part = Part(registry, '')
        choose = [{'if': _is_type(n), 'then': {'$ref': f'#/definitions/{registry}.{n}'}} for n in names]
        section = {'type': ['object', 'null'], 'properties': {'type': _names(names)}, 'allOf': choose}
        definitions[registry] = _inheriting(section, part)
        arguments = {name: _arguments(registry, name) for name in names}
        needs = [
            {'if': _is_type(name), 'then': {'required': needed}}
            for name in names
            if (needed := [a for a, p in part_parameters(registry, name)[0].items() if p.default is Parameter.empty])
        ]
        definitions[f'{registry}_complete'] = {'required': ['type']} | ({'allOf': needs} if needs else {})
        definitions[f'{registry}_registered'] = {
            'properties': {'type': {'enum': names}},
            'if': {'not': {'required': ['type']}},
            'then': {'properties': _merged(arguments.values()), 'additionalProperties': False},
        }
        definitions |= {f'{registry}.{name}': schema for name, schema in arguments.items()}
    return definitions


def _known(source: Any) -> list[str]:
    """The registered names of this package and of those that it stands on."""
    return sorted(n for n in source.keys() if source.get(n).__module__.split('.')[0] in (OWN, *PACKAGES))  # noqa: SIM118


def _names(names: list[str]) -> Schema:
    """Any string, for modules of one's own; the known ones are offered."""
    return {'description': 'A registered name.', 'anyOf': [{'enum': sorted(names)}, {'type': 'string'}]}


def _is_type(name: str) -> Schema:
    return {'properties': {'type': {'const': name}}, 'required': ['type']}


def _arguments(registry: str, name: str) -> Schema:
    taken, takes_others = part_parameters(registry, name)
    built = PART_SOURCES[registry].get(name)
    sentences = _sentences(getdoc(built) or '') if built.__module__.startswith(f'{OWN}.') else {}
    properties: Schema = {'type': True, DELETE: True}
    for argument, parameter in taken.items():
        described = {'description': sentences[argument]} if argument in sentences else {}
        properties[argument] = described | _argument(registry, name, parameter)
    return {'properties': properties} | ({} if takes_others else {'additionalProperties': False})


def _argument(registry: str, name: str, parameter: Parameter) -> Schema:
    types = [JSON_NAMES[kind] for kind in wanted_types(parameter)]
    default = parameter.default
    plain = isinstance(default, bool | int | float | str | list | tuple)
    given = {'default': list(default) if isinstance(default, tuple) else default} if plain else {}
    choices = CHOICES.get(registry, {}).get(parameter.name)
    if choices:
        return {'enum': list(choices)} | given
    return (_typed(types, argument_range(registry, name, parameter.name)) if types else {}) | given


def _merged(arguments: Iterable[Schema]) -> Schema:
    """The arguments of several parts together; one that they take differently may be any of these."""
    found: dict[str, list[Any]] = {}
    for schema in arguments:
        for name, argument in schema['properties'].items():
            known = found.setdefault(name, [])
            plain = argument if argument is True else {k: v for k, v in argument.items() if k != 'default'}
            if plain not in known:
                known.append(plain)
    return {name: kinds[0] if len(kinds) == 1 else {'anyOf': kinds} for name, kinds in sorted(found.items())}


def _sentences(doc: str) -> dict[str, str]:
    """What the ``Args:`` of a docstring say, by argument."""
    arguments = re.search(r'^Args:\n((?:[ ]{4}.*\n?|\n)+)', doc, re.MULTILINE)
    entries = re.findall(r'^ {4}(\w+): (.*(?:\n {8}.*)*)', arguments[1] if arguments else '', re.MULTILINE)
    return {name: ' '.join(text.split()) for name, text in entries}


# --- overlays: the tree of OPTIONS again, with one demand each -----------------------------------------------


def _complete(entry: Any) -> Schema:
    """What an entry that inherits nothing needs; empty where that is nothing."""
    if isinstance(entry, Key):
        return {}
    if isinstance(entry, Part):
        return _one_or_many(entry, {'$ref': f'#/definitions/{entry.registry}_complete'})
    if isinstance(entry, Named):
        inner = _complete(entry.content)
        return {'patternProperties': {_pattern(entry): inner}} if inner else {}
    required = [k for k, v in entry.items() if getattr(v, 'required', getattr(v, 'default', None) is REQUIRED)]
    inner = {name: schema for name, value in entry.items() if (schema := _complete(value))}
    return ({'required': required} if required else {}) | ({'properties': inner} if inner else {})


def _registered(entry: Any) -> Schema:
    """Names of parts that are registered without modules of the user's own."""
    if isinstance(entry, Key):
        return {}
    if isinstance(entry, Part):
        return _one_or_many(entry, {'$ref': f'#/definitions/{entry.registry}_registered'})
    if isinstance(entry, Named):
        inner = _registered(entry.content)
        return {'patternProperties': {_pattern(entry): inner}} if inner else {}
    inner = {name: schema for name, value in entry.items() if (schema := _registered(value))}
    if entry is OPTIONS:
        inner['model_type'] = {'enum': [*_known(MODEL_REGISTRY), None]}
    if entry is DATASET:
        inner['type'] = {'enum': [*_known(DATASET_REGISTRY), None]}
    return {'properties': inner} if inner else {}


def _one_or_many(part: Part, schema: Schema) -> Schema:
    return {'if': {'type': 'array'}, 'then': {'items': schema}, 'else': schema} if part.many else schema
