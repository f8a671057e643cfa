"""Find the pairs of one folder that holds both sides: in files of their own, or as halves of one file."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from ddsa_arch.errors import InputError
from ddsa_arch.files.halves import guess_clean_half, halves_of
from ddsa_arch.files.images import IMAGE_SUFFIXES, files_in
from ddsa_arch.files.matching import Pairs, files_below, is_key, is_nested, name_files, pair_files
from ddsa_arch.files.name_rules import AUTO, HALVES, LEFT_CLEAN, key_of

CLEAN_WORDS = {
    'norain',
    'nonrain',
    'clean',
    'clear',
    'gt',
    'target',
    'truth',
    'groundtruth',
    'bg',
    'background',
    'label',
}
RAINY_WORDS = {'rain', 'rainy', 'input', 'lq'}
LAYER_WORDS = ('streak', 'region', 'mask', 'layer')  # parts of words that tell of what is neither side
NO_RAIN = re.compile(r'no[-_ ]?rain|non[-_ ]?rain')
HOW = "--input 'DIR/rain-*.png' --target 'DIR/norain-*.png'"


def pair_halves(folder: str | Path, match: str = AUTO, role: str = '--halves') -> Pairs:
    """Take each file of a folder for a pair: one half is clean, the other rainy.

    Args:
        folder: of the files, and of folders with them.
        match: ``left_clean``, ``right_clean``, or ``auto``: guessed from a sample of the images.
        role: what the folder is to the user, for messages.

    Raises:
        InputError: no image, or it is in doubt which half is clean.
    """
    files, circles = files_below(folder, role) if is_nested(folder) else (files_in(folder, role), [])
    images, doubles, others = name_files(files, folder)
    if not images:
        raise InputError(f'{role}: no image in {folder} (looked for {", ".join(IMAGE_SUFFIXES)})')
    guess = ''
    if match not in HALVES:
        match, guess = guess_clean_half([file for file in images.values() if isinstance(file, Path)])
    side = 'left' if match == LEFT_CLEAN else 'right'
    told = f'the {side} half of each file is the clean image' + (f' ({guess})' if guess else '')
    pairs = Pairs(told=told, rule=match, passed_over=[*map(str, others), *circles])
    pairs.problems += [f'{folder}: two images of one name, {a.name} and {b.name}; keep one of them' for a, b in doubles]
    for name, file in images.items():
        key = key_of(name)
        if not is_key(key) or key in pairs.inputs:
            pairs.problems.append(f'{file}: {key!r} cannot be its key; rename it')
        elif isinstance(file, Path):
            rainy, clean = halves_of(file, match)
            pairs.add(key, key, rainy, clean)
    return pairs


def pair_one_folder(folder: str | Path, match: str, roles: tuple[str, str], strays: Collection[str]) -> Pairs:
    """Tell the two sides of one folder by the words in the names of its files."""
    files, circles = files_below(folder, roles[0]) if is_nested(folder) else (files_in(folder, roles[0]), [])
    groups: dict[str, list[Path]] = {'rainy': [], 'clean': [], 'layer': [], '': []}
    others: list[Path] = []
    for file in files:
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith('.'):
            groups[_kind(file.stem)].append(file)
        elif not file.name.startswith('.'):
            others.append(file)
    if groups[''] or not groups['rainy'] or not groups['clean']:
        shown = ', '.join(f'{pattern} ({count})' for pattern, count in _patterns(files).items()) or 'none'
        both = f'{roles[0]} and {roles[1]} are both {folder}; name the clean images as {roles[1]}'
        no_set = f'{roles[0]}: no set in {folder}; wanted input.lmdb and target.lmdb there, or folders input and target'
        raise InputError(
            f'{no_set if roles[0] == roles[1] else both}. If both sides lie there, their names do not tell which is '
            f'which (images: {shown}); say so: {HOW}. If each file holds both halves: --match left_clean or --match '
            'right_clean'
        )
    pairs = pair_files(
        groups['rainy'], groups['clean'], f'the rainy images of {folder}', f'the clean images of {folder}', strays,
        match, (folder, folder),
    )  # fmt: skip
    sides = (' and '.join(_patterns(groups[side])) for side in ('rainy', 'clean'))
    pairs.told = '{} are rainy, {} clean; '.format(*sides) + pairs.told
    layers = [
        f'{folder}: {count} images {pattern}, no side of a pair'
        for pattern, count in _patterns(groups['layer']).items()
    ]
    pairs.passed_over += [*map(str, others), *layers, *circles]
    return pairs


def _kind(stem: str) -> str:
    """Tell by the words of a name whether an image is ``rainy``, ``clean`` or a ``layer`` of rain, '' if unknown."""
    text = stem.lower()
    words = set(re.findall(r'[a-z]+', text))
    if any(layer in text for layer in LAYER_WORDS):
        return 'layer'
    is_clean = bool(words & CLEAN_WORDS or NO_RAIN.search(text))
    is_rainy = bool(words & RAINY_WORDS) and not NO_RAIN.search(text)
    return '' if is_clean == is_rainy else 'clean' if is_clean else 'rainy'


def _patterns(files: Sequence[Path], most: int = 4) -> dict[str, int]:
    """Return the patterns of names, digits as #, with the number of files of each; few stand for all."""
    counts: dict[str, int] = {}
    for file in files:
        if file.suffix.lower() in IMAGE_SUFFIXES:
            pattern = re.sub(r'\d+', '#', file.stem)
            counts[pattern] = counts.get(pattern, 0) + 1
    shown = dict(sorted(counts.items(), key=lambda item: -item[1])[:most])
    return shown if len(counts) <= most else {**shown, '...': sum(counts.values()) - sum(shown.values())}
