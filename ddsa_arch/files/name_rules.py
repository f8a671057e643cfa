"""Rules that tell which clean image belongs to which rainy one, from names alone.

A name is a file's path below the folder of its side, without suffix, or the key of a store.

stem
    The two names are equal.
common
    The names are equal once the text that all names of a side share at their beginning and at their end is taken off.
    No word and no number is cut. ``001`` and ``1`` are equal where no other name is.
many_to_one
    The rainy name is the clean one, ``_`` or ``-``, and a number. Or the clean image is the only one in its folder, and
    belongs to all rainy ones in the folder of that name.

``auto`` takes ``stem`` if any two names are equal, else the one other rule that leaves no name over. In doubt it takes
none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ddsa_arch.errors import InputError
from ddsa_arch.files.images import some

AUTO, STEM, COMMON, MANY_TO_ONE = 'auto', 'stem', 'common', 'many_to_one'
LEFT_CLEAN, RIGHT_CLEAN = 'left_clean', 'right_clean'
HALVES = (LEFT_CLEAN, RIGHT_CLEAN)
KEY_RULES = (AUTO, STEM, COMMON, MANY_TO_ONE)  # those that look at names alone
MATCHES = (*KEY_RULES, *HALVES)  # what an option or ``--match`` may say
FOLDER_MARK = '__'  # stands for / in a key
VARIANT = re.compile(r'(.+)[_-](\d+)')  # a clean name, and the number of its rain


@dataclass(frozen=True)
class Matched:
    """The pairs that a rule finds.

    Attributes:
        rule: its name.
        told: what it says here, for ``matched by: ...``.
        partner: the clean name of each rainy name that has one, in the order of the rainy names.
        keys: the key of a rainy name in a store, where it is not the name itself.
        target_keys: the key of a clean name, likewise.
        lonely: rainy names without a partner, and clean ones.
        doubt: why the rule may be wrong here, '' if nothing speaks against it.
        hint: what a message about lonely names should add.
    """

    rule: str
    told: str
    partner: dict[str, str]
    keys: dict[str, str] = field(default_factory=dict)
    target_keys: dict[str, str] = field(default_factory=dict)
    lonely: tuple[list[str], list[str]] = ((), ())  # type: ignore[assignment]
    doubt: str = ''
    hint: str = ''

    @property
    def complete(self) -> bool:
        """Return whether every name has a partner and nothing speaks against the rule."""
        return bool(self.partner) and not any(self.lonely) and not self.doubt


def match_names(
    inputs: Collection[str], targets: Collection[str], rule: str, input_name: str, target_name: str
) -> Matched:
    """Find the clean name of each rainy name.

    Args:
        inputs: rainy names, each once, in order.
        targets: clean names, likewise.
        rule: ``auto``, ``stem``, ``common`` or ``many_to_one``.
        input_name: of the rainy side, for messages.
        target_name: of the clean side.

    Raises:
        InputError: no two names are a pair, or it is in doubt which are.
    """
    if rule not in MATCHERS and rule != AUTO:
        raise InputError(f'match {rule!r}: not a rule for names; use {", ".join((AUTO, *MATCHERS))}')
    found = {name: matcher(list(inputs), list(targets)) for name, matcher in MATCHERS.items()}
    others = [found[name] for name in (COMMON, MANY_TO_ONE)]
    complete = [match for match in others if match.complete]
    if rule != AUTO:
        chosen: Matched | None = found[rule]
    elif found[STEM].partner:
        chosen = found[STEM]
    else:
        alike = complete and all(match.partner == complete[0].partner for match in complete)
        chosen = complete[0] if alike else None
    if chosen and chosen.partner:
        nearest = [match for match in complete if match.rule != chosen.rule]
        hint = f'; these look like {nearest[0].told}: --match {nearest[0].rule}' if nearest else ''
        return _with_hint(chosen, hint if any(chosen.lonely) else '')
    told = (
        f'no image of {input_name} has a partner in {target_name}: they hold names such as '
        f'{next(iter(inputs))} and {next(iter(targets))}, and '
    )
    if rule != AUTO:
        why = f'{rule} gives no pair' + ('' if rule == STEM or not complete else f'; {_nearest(complete, len(inputs))}')
    elif len(complete) > 1:
        rules = ' or '.join(f'--match {match.rule}' for match in complete)
        why = f'two rules would pair them in two ways; choose one: {rules}'
    else:
        partly = sorted((m for m in others if m.partner), key=lambda m: len(m.partner), reverse=True)
        why = 'pairs match by stem; ' + (
            _nearest(partly, len(inputs))
            if partly
            else "rename one side, or say where the names differ: --input 'DIR/rain-*.png' --target 'DIR/norain-*.png'"
        )
    raise InputError(told + why)


def _with_hint(match: Matched, hint: str) -> Matched:
    return Matched(
        match.rule, match.told, match.partner, match.keys, match.target_keys, match.lonely, match.doubt, hint
    )


def _nearest(matches: Sequence[Matched], count: int) -> str:
    best = matches[0]
    doubt = f', but {best.doubt}' if best.doubt else ''
    rest = some([*best.lonely[0], *best.lonely[1]])
    over = f' and leave over {rest}' if rest else ''
    return (
        f'these look like {best.told}{doubt}: --match {best.rule} (match: {best.rule} in an option file) would pair '
        f'{len(best.partner)} of {count}{over}'
    )


# --- the rules ---------------------------------------------------------------------------------------------


def _by_stem(inputs: Sequence[str], targets: Sequence[str]) -> Matched:
    known = set(targets)
    partner = {name: name for name in inputs if name in known}
    keys = {name: key_of(name) for name in partner}
    return Matched(STEM, 'equal names', partner, keys, keys, _lonely(inputs, targets, partner))


def _by_common_text(inputs: Sequence[str], targets: Sequence[str]) -> Matched:
    affixes, cores = [], []
    for names in (inputs, targets):
        before, after = shared_text([split(name)[1] for name in names])
        affixes.append((before, after))
        cores.append({name: _core(name, before, after) for name in names})
    partner = _equal(*cores)
    counted = [{name: (folder, _as_numbers(core)) for name, (folder, core) in side.items()} for side in cores]
    if all(len(set(side.values())) == len(side) for side in counted):
        by_number = _equal(*counted)
        partner = by_number if len(by_number) > len(partner) else partner
    keys = {name: key_of('/'.join(filter(None, cores[0][name]))) for name in partner}
    shown = ' and '.join(f'{before}*{after}' for before, after in affixes)
    numbers = [re.findall(r'\d+', before) + re.findall(r'\d+', after) for before, after in affixes]
    doubt = f'the numbers in {shown} differ' if all(numbers) and numbers[0] != numbers[1] else ''
    return Matched(
        COMMON, f'what * stands for in {shown} is equal', partner, keys, {partner[n]: k for n, k in keys.items()},
        _lonely(inputs, targets, partner), doubt,
    )  # fmt: skip


def _many_to_one(inputs: Sequence[str], targets: Sequence[str]) -> Matched:
    known = set(targets)
    variants = {name: VARIANT.fullmatch(name) for name in inputs}
    partner = {name: match[1] for name, match in variants.items() if match and match[1] in known}
    told = 'many rainy images of one clean one, NAME_1, NAME_2 ... of NAME'
    keys, target_keys = {name: key_of(name) for name in partner}, {name: key_of(name) for name in known}
    if len(partner) < len(inputs):
        scenes = _by_scene(inputs, targets)
        if len(scenes) > len(partner):
            partner = scenes
            told = 'many rainy images of the one clean image of their folder'
            counts = Counter(split(target)[0] for target in targets)
            target_keys = {t: key_of(split(t)[0] if counts[split(t)[0]] == 1 else t) for t in targets}
            keys = numbered_keys(partner, target_keys)
    return Matched(MANY_TO_ONE, told, partner, keys, target_keys, _lonely(inputs, targets, partner))


def _by_scene(inputs: Sequence[str], targets: Sequence[str]) -> dict[str, str]:
    """Give each rainy image the clean one of its folder; where a folder has several, the one of its number."""
    clean: dict[str, list[str]] = {}
    for target in targets:
        clean.setdefault(split(target)[0], []).append(target)
    partner = {}
    for name in inputs:
        folder, base = split(name)
        there = clean.get(folder, []) if folder else []
        if len(there) > 1:
            there = [target for target in there if last_number(target) == last_number(base) is not None]
        if len(there) == 1:
            partner[name] = there[0]
    return partner


MATCHERS: dict[str, Callable[[Sequence[str], Sequence[str]], Matched]] = {
    STEM: _by_stem,
    COMMON: _by_common_text,
    MANY_TO_ONE: _many_to_one,
}

# --- names and keys ----------------------------------------------------------------------------------------


def key_of(name: str) -> str:
    """Return a name as a key, in which a mark stands for the / of folders."""
    return name.replace('/', FOLDER_MARK)


def numbered_keys(partner: dict[str, str], target_keys: dict[str, str]) -> dict[str, str]:
    """Return keys by which ``many_to_one`` finds the partner: the clean key, ``_``, and the number of the rainy image.

    Args:
        partner: the clean name of each rainy one.
        target_keys: the key of each clean name.
    """
    members: dict[str, list[str]] = {}
    for name, target in partner.items():
        members.setdefault(target, []).append(name)
    keys = {}
    for target, names in members.items():
        numbers = [last_number(name) for name in names]
        own = None not in numbers and len(set(numbers)) == len(numbers)
        for place, (name, number) in enumerate(zip(names, numbers, strict=True), 1):
            keys[name] = f'{target_keys[target]}_{number if own else place}'
    return keys


def split(name: str) -> tuple[str, str]:
    """Return the folder of a name, '' for none, and what follows it."""
    folder, _, base = name.rpartition('/')
    return folder, base


def last_number(name: str) -> str | None:
    """Return the last number in a name as it is written."""
    numbers = re.findall(r'\d+', PurePosixPath(name).name)
    return numbers[-1] if numbers else None


def shared_text(names: Sequence[str]) -> tuple[str, str]:
    """Return the text at the beginning and at the end that all names share, which cuts no word and no number."""
    before = _whole_words(_shared_beginning(names), names)
    rest = [name[len(before) :][::-1] for name in names]
    after = _whole_words(_shared_beginning(rest), rest)
    return before, after[::-1]


def _shared_beginning(names: Sequence[str]) -> str:
    first, last = min(names), max(names)  # what these two share, all that stand between them share too
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:length]


def _whole_words(prefix: str, names: Sequence[str]) -> str:
    """Shorten a shared beginning until no name is cut within a run of letters or digits, and none is used up."""
    while prefix and any(_is_cut(name, len(prefix)) for name in names):
        prefix = prefix[:-1]
    return prefix


def _is_cut(name: str, at: int) -> bool:
    if at >= len(name):
        return True
    last, following = name[at - 1], name[at]
    return (last.isdecimal() and following.isdecimal()) or (last.isalpha() and following.isalpha())


def _core(name: str, before: str, after: str) -> tuple[str, str]:
    folder, base = split(name)
    return folder, base[len(before) : len(base) - len(after)]


def _as_numbers(core: str) -> str:
    """Return a core with its numbers written without leading zeros."""
    return re.sub(r'\d+', lambda match: str(int(match[0])), core)


def _equal(inputs: dict[str, tuple[str, str]], targets: dict[str, tuple[str, str]]) -> dict[str, str]:
    known = {core: name for name, core in targets.items()}
    return {name: known[core] for name, core in inputs.items() if core in known}


def _lonely(inputs: Iterable[str], targets: Iterable[str], partner: dict[str, str]) -> tuple[list[str], list[str]]:
    used = set(partner.values())
    return [name for name in inputs if name not in partner], [name for name in targets if name not in used]
