"""The registered parts that option files name, and what each of them takes."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from inspect import Parameter
from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY

from ddsa_arch.errors import LONGEST_SHOWN, InputError, did_you_mean, shown
from ddsa_arch.models.optimisation import OPTIMISERS, SCHEDULERS
from ddsa_arch.options.schema import CHOICES, NOT_WORDS, RANGES, Part, Range

PART_SOURCES = {
    'arch': ARCH_REGISTRY,
    'loss': LOSS_REGISTRY,
    'metric': METRIC_REGISTRY,
    'optimiser': OPTIMISERS,
    'scheduler': SCHEDULERS,
}
GIVEN_BY_CALLER = {'metric': ('img', 'img2'), 'optimiser': ('params',), 'scheduler': ('optimizer', 'param_name')}
# where the model decides otherwise than the constructor: it passes lr by name, and steps schedules in iterations
OTHER_DEFAULTS: dict[str, dict[str, Any]] = {'optimiser': {'lr': Parameter.empty}, 'scheduler': {'by_epoch': False}}

MAY_BE_NONE = ('label', 'num_refinement_blocks')  # of networks: 0 is a class of rain, or leaves blocks out

YAML_TYPES: dict[str, type] = {kind.__name__: kind for kind in (bool, int, float, str, list, dict)} | {
    'None': type(None), 'Mapping': dict, 'Sequence': list, 'Iterable': list, 'List': list, 'Tuple': list, 'tuple': list
}  # fmt: skip


def part_parameters(registry: str, name: str) -> tuple[dict[str, Parameter], bool]:
    """What a registered part takes from an option file.

    Args:
        registry: a key of ``PART_SOURCES``.
        name: a registered name.

    Returns:
        Its parameters by name, less those that the caller gives, and whether it takes any other beside them.
    """
    parameters = _parameters(PART_SOURCES[registry].get(name))
    taken = {
        p.name: p.replace(default=OTHER_DEFAULTS.get(registry, {}).get(p.name, p.default))
        for p in parameters
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in GIVEN_BY_CALLER.get(registry, ())
    }
    return taken, any(p.kind is p.VAR_KEYWORD for p in parameters)


def _parameters(built: Callable) -> list[Parameter]:
    parameters = list(inspect.signature(built).parameters.values())
    if isinstance(built, type) and _hands_all_on(parameters):  # the schedules of mmengine: the next class tells
        for base in built.__mro__[1:]:
            if '__init__' in vars(base):
                of_base = list(inspect.signature(vars(base)['__init__']).parameters.values())[1:]
                if not _hands_all_on(of_base):
                    return of_base
    return parameters


def _hands_all_on(parameters: list[Parameter]) -> bool:
    return {p.kind for p in parameters} >= {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}


def wanted_types(parameter: Parameter) -> tuple[type, ...]:
    """The types of YAML values that an argument is annotated with; none where that says nothing."""
    annotation = parameter.annotation
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation).replace('typing.', '')
    if optional := re.fullmatch(r'Optional\[(.*)\]', text):
        text = f'{optional[1]} | None'
    words = [word.strip().split('.')[-1] for word in re.sub(r'\[.*\]', '', text).split('|')]
    types = [YAML_TYPES[word] for word in words if word in YAML_TYPES]
    if types and parameter.default is None and type(None) not in types:
        types.append(type(None))
    return tuple(types)


def entry_type(parameter: Parameter) -> type | tuple[type, ...] | None:
    """The type of the entries of a list that an argument is annotated with, where these are numbers."""
    text = str(parameter.annotation).replace('typing.', '')
    found = re.search(r'(?:[Ss]equence|[Ll]ist|[Tt]uple)\[(.*)\]', text)
    words = set(re.findall(r'\w+', found[1])) if found else set()
    if 'float' in words and 'str' not in words:
        return (int, float, type(None)) if 'None' in words else (int, float)
    return int if words == {'int'} else None


def argument_range(registry: str, name: str, argument: str) -> Range:
    """The numbers that an argument of a registered part takes.

    The schema tells of those that are common. An integer of a network of this package is positive where its default
    is: it counts channels, heads or blocks.
    """
    known = RANGES.get(registry, {}).get(argument, Range())
    if registry != 'arch' or not PART_SOURCES[registry].get(name).__module__.startswith('ddsa_arch.'):
        return known
    parameter = part_parameters(registry, name)[0].get(argument)
    default = getattr(parameter, 'default', None)
    entries = default if isinstance(default, list | tuple) else [default]
    if not all(type(entry) is int and entry > 0 for entry in entries):
        return known
    return Range(minimum=0 if argument in MAY_BE_NONE else 1, maximum=known.maximum)


def check_part(given: Any, part: Part, place: str) -> Any:
    """A section that builds a registered part, or a list of them, checked.

    Args:
        given: the section; None where there is none.
        part: from the schema.
        place: the section's name in messages.

    Raises:
        InputError: naming the key: missing, an unknown part, or an argument that it does not take.
    """
    if given is None:
        if part.required:
            raise InputError(f'{place} is missing: {part.doc}')
        return None
    if part.many and isinstance(given, list):
        one = replace(part, many=False, required=True)
        return [check_part(entry, one, f'{place}[{i}]') for i, entry in enumerate(given)]
    if not isinstance(given, Mapping) or given.get('type') is None:
        raise InputError(f'{place}.type is missing: {part.doc}')
    source, name = PART_SOURCES[part.registry], given['type']
    if not isinstance(name, str) or name not in source:
        raise InputError(not_registered(f'{place}.type', part.registry, name, source.keys()))
    taken, takes_others = part_parameters(part.registry, name)
    for argument in given:
        if argument != 'type' and argument not in taken and not takes_others:
            hint = did_you_mean(str(argument), taken)
            if not hint.endswith('?'):  # no slip of the pen: more likely left over from the base
                hint = f'; `_delete_: true` in {place} drops what it inherits{hint}'
            raise InputError(f'unknown key {place}.{argument}: {name} does not take it{hint}')
    checked = dict(given)
    for argument, value in given.items():
        check_finite(value, f'{place}.{argument}')
    for argument, parameter in taken.items():
        if argument in given:
            checked[argument] = _check_argument(given[argument], parameter, f'{place}.{argument}', name)
        elif parameter.default is Parameter.empty:
            raise InputError(f'{place}.{argument} is missing: {name} needs it')
    for argument, value in checked.items():
        problem = argument_range(part.registry, name, argument).problem(value)
        if problem:
            raise InputError(f'{place}.{argument}: {shown(value)} {problem}')
        choices = CHOICES.get(part.registry, {}).get(argument)
        if choices and value not in choices:
            raise InputError(f'{place}.{argument}: {shown(value)}, wanted {" or ".join(map(repr, choices))}')
    return checked


def check_finite(value: Any, place: str) -> None:
    """
    Raises:
        InputError: there is a number that is not finite, at any depth.
    """
    if isinstance(value, Mapping):
        for key, entry in value.items():
            check_finite(entry, f'{place}.{key}')
    elif isinstance(value, list | tuple):
        for number, entry in enumerate(value):
            check_finite(entry, f'{place}[{number}]')
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f'{place}: {value!r} is no finite number')


def _check_argument(value: Any, parameter: Parameter, place: str, name: str) -> Any:
    types = wanted_types(parameter)
    if int in types and isinstance(value, float) and value.is_integer():
        value = int(value)  # such as 1e4
    allowed = (*types, int) if float in types else types
    if types and (not isinstance(value, allowed) or (isinstance(value, bool) and bool not in types)):
        wanted = ' or '.join(kind.__name__ for kind in types if kind is not type(None))
        raise InputError(f'{place}: {shown(value)} is {type(value).__name__}, {name} takes {wanted}')
    if isinstance(value, list) and (kind := entry_type(parameter)):
        wrong = [entry for entry in value if not isinstance(entry, kind) or isinstance(entry, bool)]
        if wrong:
            wanted = 'whole numbers' if kind is int else 'numbers'
            raise InputError(f'{place}: {shown(wrong[0])} is {type(wrong[0]).__name__}, {name} takes {wanted} there')
    return value


def not_registered(place: str, kind: str, name: Any, known: Any) -> str:
    """The message for a name that no part of its kind has."""
    if isinstance(name, bool):
        return f'{place}: {name!r}: {NOT_WORDS}'
    return f'{place}: no {kind} {shown(name)} is registered{did_you_mean(str(name)[:LONGEST_SHOWN], known)}'
