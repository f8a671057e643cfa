"""Find the pairs of a set wherever its two sides lie: two folders, patterns, one folder, halves of files, a list."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from ddsa_arch.errors import InputError
from ddsa_arch.files.images import IMAGE_SUFFIXES, files_in, images_by_stem, inside
from ddsa_arch.files.matching import SIDES, Pairs, files_below, is_key, is_nested, name_files, pair_files
from ddsa_arch.files.name_rules import AUTO, HALVES, MATCHES, key_of
from ddsa_arch.files.one_folder import pair_halves, pair_one_folder
from ddsa_arch.files.pair_lists import pair_list

# folders below a set that are known to hold its sides, rainy before clean, in lower case; a blank counts as _
SIDE_NAMES = (
    SIDES,
    ('rainy_image', 'ground_truth'),
    ('rain', 'norain'),
    ('rain', 'gt'),
    ('rainy', 'clean'),
    ('lq', 'gt'),
)


def find_pairs(
    inputs: str | Path,
    targets: str | Path | None = None,
    match: str = AUTO,
    pairs_file: str | Path | None = None,
    strays: Collection[str] = (),
    roles: tuple[str, str] = ('--input', '--target'),
) -> Pairs:
    """Find the pairs of a set. Nothing is read but names, unless it is to be guessed which half of files is clean.

    Args:
        inputs: folder of the rainy images, or a pattern with ``*`` (``**`` for folders); or the folder of both sides,
            such as ``input`` and ``target``, or of files with halves; with ``pairs_file`` the folder at which the paths
            in it begin.
        targets: of the clean images, likewise; None or the same folder where one folder holds both sides.
        match: a rule of ``files.name_rules``.
        pairs_file: text of two columns of paths, see ``files.pair_lists``.
        strays: stems to leave out.
        roles: what the two are to the user, for messages.

    Raises:
        InputError: no such folder, no pair, or doubt.
    """
    if match not in MATCHES:
        raise InputError(f'match {match!r}: no such rule; use one of {", ".join(MATCHES)}')
    inputs = os.path.expanduser(inputs)
    targets = inputs if targets is None else os.path.expanduser(targets)
    if pairs_file:
        return pair_list(pairs_file, inputs)
    patterns = [is_pattern(side) for side in (inputs, targets)]
    if any(patterns):
        if not all(patterns):
            raise InputError(f'{inputs} and {targets}: write * into both or into none')
        return _pair_by_patterns(str(inputs), str(targets), match, strays)
    if match in HALVES:
        if os.path.realpath(inputs) != os.path.realpath(targets):
            raise InputError(
                f'match: {match} takes one folder, whose files hold both halves; {inputs} and {targets} are two'
            )
        return pair_halves(inputs, match, roles[0])
    if os.path.realpath(inputs) == os.path.realpath(targets):
        sides = side_folders(inputs) if Path(inputs).is_dir() else None
        if sides is None:
            return pair_one_folder(inputs, match, roles, strays)
        inputs, targets = sides
    return _pair_folders(inputs, targets, match, strays, roles)


def is_pattern(place: str | Path) -> bool:
    """Return whether a place is a pattern of paths, by its ``*``; a folder of that very name is none."""
    return '*' in str(place) and not Path(place).exists()


def images_of(place: str | Path, role: str) -> dict[str, Path]:
    """Find the images of one side by key: of a folder, of the folders in it, or of a pattern with ``*``.

    Raises:
        InputError: no such folder, no image, two images of one name, or two paths that make one key.
    """
    if is_pattern(place):
        _, matched, _ = expand_pattern(os.path.expanduser(place))
        named = dict(matched)
    elif is_nested(place):
        if side_folders(place):  # it is the folder of a set, not of one side
            raise InputError(f'{role}: {place} holds both sides of a set{inside(place, role)}')
        images, doubles, _ = name_files(files_below(place, role)[0], place)
        if doubles:
            first, second = doubles[0]
            raise InputError(f'{role}: two images of one name, {first} and {second.name}; keep one of each')
        named = {name: file for name, file in images.items() if isinstance(file, Path)}
    else:
        return images_by_stem(place, role)
    if not named:
        raise InputError(f'{role}: no image in {place} (looked for {", ".join(IMAGE_SUFFIXES)})')
    found: dict[str, Path] = {}
    for name, file in named.items():
        if key_of(name) in found:
            raise InputError(
                f'{role}: {found[key_of(name)]} and {file} would both be {key_of(name)}; rename one of them'
            )
        found[key_of(name)] = file
    return found


def holds_images(place: str | Path) -> bool:
    """Return whether an image lies in a folder, or in one of the folders in it where no other file is."""
    files = files_below(place)[0] if is_nested(place) else files_in(place)
    return any(file.suffix.lower() in IMAGE_SUFFIXES for file in files)


def side_folders(place: str | Path) -> tuple[Path, Path] | None:
    """Return the folders of the two sides of a set that lie below its folder under one of the known names."""
    with os.scandir(place) as entries:
        below = {entry.name.lower().replace(' ', '_'): Path(entry.path) for entry in entries if entry.is_dir()}
    for rainy, clean in SIDE_NAMES:
        if rainy in below and clean in below:
            return below[rainy], below[clean]
    return None


# --- two folders, patterns ---------------------------------------------------------------------------------


def _pair_folders(
    inputs: str | Path, targets: str | Path, match: str, strays: Collection[str], roles: tuple[str, str]
) -> Pairs:
    folders = (inputs, targets)
    nested = [is_nested(folder) for folder in folders]
    circles: list[str] = []
    sides: list[list[Path]] = []
    for folder, role in zip(folders, roles, strict=True):
        found, more = files_below(folder, role) if any(nested) else (files_in(folder, role), [])
        sides.append(found)
        circles += more
    pairs = pair_files(sides[0], sides[1], str(inputs), str(targets), strays, match, folders if any(nested) else None)
    pairs.passed_over += circles
    return pairs


def _pair_by_patterns(inputs: str, targets: str, match: str, strays: Collection[str]) -> Pairs:
    """Pair the files that two patterns name: what ``*`` stands for is equal; or another rule, if one is given."""
    if match in HALVES:
        raise InputError(f'match: {match} takes a folder; {inputs} is a pattern')
    sides, bases, circles = [], [], []
    for pattern in (inputs, targets):
        base, matched, more = expand_pattern(pattern)
        if not matched:
            raise InputError(f'{pattern}: no image is named so')
        sides.append(matched)
        bases.append(base)
        circles += more
    files = [[file for _, file in side] for side in sides]
    if match != AUTO:
        pairs = pair_files(files[0], files[1], inputs, targets, strays, match, (bases[0], bases[1]))
    else:
        pairs = _equal_stars(sides[0], sides[1], inputs, targets)
    pairs.passed_over += circles
    return pairs


def expand_pattern(pattern: str) -> tuple[Path, list[tuple[str, Path]], list[str]]:
    """Find the images that a pattern names.

    Args:
        pattern: a path in which ``*`` stands for any text without /, and ``**`` for any folders, or none.

    Returns:
        The folder before the first ``*``, the images with what ``*`` stands for, and links that lead into a circle.
    """
    parts = Path(pattern).parts
    first = next(i for i, part in enumerate(parts) if '*' in part)
    base = Path(*parts[:first]) if first else Path()
    rest = '/'.join(parts[first:])
    suffix = PurePosixPath(rest).suffix.lower()
    bare = rest[: -len(suffix)] if suffix in (*IMAGE_SUFFIXES, '.*') else rest
    pieces = {'**/': '((?:[^/]+/)*)', '**': '(.*)', '*': '([^/]*)'}
    regex = re.compile(''.join(pieces.get(piece, re.escape(piece)) for piece in re.split(r'(\*\*/|\*\*|\*)', bare)))
    files, circles = files_below(base, pattern)
    if suffix in IMAGE_SUFFIXES:
        files = [file for file in files if file.suffix.lower() == suffix]
    images, doubles, _ = name_files(files, base)
    if doubles:
        first_file, second = doubles[0]
        raise InputError(f'{pattern}: two images of one name, {first_file} and {second.name}; write the suffix')
    found = [(match.groups(), file) for name, file in images.items() if (match := regex.fullmatch(name))]
    named = [('/'.join(filter(None, (text.strip('/') for text in stars))), file) for stars, file in found]
    return base, [(stars, file) for stars, file in named if isinstance(file, Path)], circles


def _equal_stars(
    inputs: Sequence[tuple[str, Path]], targets: Sequence[tuple[str, Path]], input_name: str, target_name: str
) -> Pairs:
    pairs = Pairs(told=f'what * stands for in {input_name} and {target_name} is equal', rule='*')
    rainy, clean = dict(inputs), dict(targets)
    if not rainy.keys() & clean.keys():
        raise InputError(
            f'{input_name} and {target_name}: * stands for {next(iter(rainy))} ... and {next(iter(clean))} ..., which '
            'are never equal; write the patterns so that they are, or give --match many_to_one'
        )
    for names, other, name, place in ((rainy, clean, input_name, target_name), (clean, rainy, target_name, input_name)):
        pairs.problems += [
            f'{name}: {file.name} has no partner in {place}; add it, or remove the lonely one'
            for stars, file in names.items()
            if stars not in other
        ]
    for stars, file in rainy.items():
        key = key_of(stars)
        if stars in clean and is_key(key) and key not in pairs.inputs:
            pairs.add(key, key, file, clean[stars])
        elif stars in clean:
            pairs.problems.append(f'{file}: {key!r} cannot be its key; rename both images of the pair')
    return pairs
