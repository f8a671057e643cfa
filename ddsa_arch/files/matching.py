"""Pair the image files of a set by a rule for their names, and tell of every file that has no place in a pair."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ddsa_arch.errors import InputError
from ddsa_arch.files.images import IMAGE_SUFFIXES, ImageFile, files_in, natural_key, sort_files
from ddsa_arch.files.name_rules import AUTO, STEM, Matched, match_names

SIDES = ('input', 'target')  # of a pair: rainy and clean
LONGEST_KEY = 500  # bytes; LMDB's limit is 511


@dataclass
class Pairs:
    """The pairs of a set.

    Attributes:
        inputs: rainy images by key, in natural order.
        targets: clean images by key.
        problems: a sentence for each image that is not of a pair or cannot have a key.
        passed_over: files that are no images, and those that are known to be shipped by mistake.
        partner: the key of the clean image of each rainy one, where it is another than its own.
        told: the rule that made the pairs, in words.
        rule: its name.
    """

    inputs: dict[str, ImageFile] = field(default_factory=dict)
    targets: dict[str, ImageFile] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    partner: dict[str, str] = field(default_factory=dict)
    told: str = 'equal names'
    rule: str = STEM

    def target_of(self, key: str) -> str:
        """Return the key of the clean image of a rainy one."""
        return self.partner.get(key, key)

    def add(self, key: str, target_key: str, rainy: ImageFile, clean: ImageFile) -> None:
        """Add a pair."""
        self.inputs[key], self.targets[target_key] = rainy, clean
        if key != target_key:
            self.partner[key] = target_key

    def keep(self, keys: Collection[str]) -> None:
        """Drop all pairs but these."""
        self.inputs = {key: file for key, file in self.inputs.items() if key in keys}
        used = {self.target_of(key) for key in self.inputs}
        self.targets = {key: file for key, file in self.targets.items() if key in used}
        self.partner = {key: target for key, target in self.partner.items() if key in keys}


def pair_files(
    inputs: Iterable[ImageFile],
    targets: Iterable[ImageFile],
    input_name: str,
    target_name: str,
    strays: Collection[str] = (),
    match: str = AUTO,
    below: tuple[str | Path, str | Path] | None = None,
) -> Pairs:
    """Pair files by their names. Nothing is read but names.

    Args:
        inputs: all files of the rainy side.
        targets: all files of the clean side.
        input_name: of the rainy side, for messages.
        target_name: of the clean side.
        strays: stems to leave out.
        match: a rule of ``files.name_rules``.
        below: the two folders whose folders are part of the names; without them the file's own name is the name.

    Raises:
        InputError: a side without images, two sides without a pair, or doubt about the rule.
    """
    pairs = Pairs()
    sides = []
    for place, (files, name) in enumerate(((inputs, input_name), (targets, target_name))):
        images, doubles, others = name_files(files, below[place] if below else None)
        pairs.passed_over += [str(file) for file in others]
        pairs.problems += [
            f'{name}: two images of one name, {first.name} and {second.name}; keep one of them'
            for first, second in doubles
        ]
        pairs.passed_over += [str(file) for file in images.values() if file.stem in strays]
        doubled = {file.stem for file, _ in doubles}
        images = {key: file for key, file in images.items() if file.stem not in strays}
        if not images:
            raise InputError(f'{name}: no image (looked for {", ".join(IMAGE_SUFFIXES)})')
        sides.append((images, doubled))
    (rainy, rainy_doubles), (clean, clean_doubles) = sides
    matched = match_names(list(rainy), list(clean), match, input_name, target_name)
    pairs.rule, pairs.told = matched.rule, matched.told
    pairs.problems += lonely_problems(matched, rainy, clean, input_name, target_name)
    for name, target in matched.partner.items():
        if rainy[name].stem in rainy_doubles or clean[target].stem in clean_doubles:
            continue
        _add_named(pairs, matched.keys[name], matched.target_keys[target], rainy[name], clean[target])
    return pairs


def _add_named(pairs: Pairs, key: str, target_key: str, rainy: ImageFile, clean: ImageFile) -> None:
    """Add a pair, unless a key cannot be one or is that of another image."""
    for each in dict.fromkeys((key, target_key)):
        if not is_key(each):
            pairs.problems.append(
                f'{each!r} cannot be the key of an LMDB; rename both images of the pair '
                f'(no dot before the suffix, not blank, one line of UTF-8 of at most {LONGEST_KEY} bytes)'
            )
            return
    taken = pairs.inputs.get(key) or (pairs.targets.get(target_key) if pairs.targets.get(target_key) != clean else None)
    if taken:
        pairs.problems.append(f'{taken} and {rainy} would both have the key {key!r}; rename one of them')
        return
    pairs.add(key, target_key, rainy, clean)


def name_files(
    files: Iterable[ImageFile], below: str | Path | None = None
) -> tuple[dict[str, ImageFile], list[tuple[ImageFile, ImageFile]], list[ImageFile]]:
    """Name files by their paths without suffix.

    Args:
        files: of one side.
        below: the folder at which the paths begin; without it the names are stems.

    Returns:
        The images by name in natural order, pairs of images of one name, and files that are no images.
    """
    if below is None:
        found = sort_files(files)
        return found.images, found.doubles, found.others
    by_folder: dict[str, list[ImageFile]] = {}
    for file in files:
        folder = os.path.relpath(os.path.dirname(str(file)), below).replace(os.sep, '/')
        by_folder.setdefault('' if folder == '.' else f'{folder}/', []).append(file)
    images: dict[str, ImageFile] = {}
    doubles, others = [], []
    for folder in sorted(by_folder, key=lambda name: (natural_key(name), name)):
        found = sort_files(by_folder[folder])
        images |= {f'{folder}{stem}': file for stem, file in found.images.items()}
        doubles += found.doubles
        others += found.others
    return images, doubles, others


def files_below(folder: str | Path, role: str = 'folder') -> tuple[list[Path], list[str]]:
    """Return the files of a folder and of all folders in it, and a sentence for each link that leads into a circle.

    Links are followed; a folder that was gone through already is not gone through again. Hidden folders are left out.

    Raises:
        InputError: no such folder.
    """
    files_in(folder, role)  # whether it is there
    files: list[Path] = []
    circles: list[str] = []
    seen: set[tuple[int, int]] = set()
    for place, names, found in os.walk(folder, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:
            names.clear()
            circles.append(f'{place}: a link to a folder that was gone through already')
            continue
        seen.add((status.st_dev, status.st_ino))
        names[:] = sorted(name for name in names if not name.startswith('.') and not name.endswith('.lmdb'))
        files += [Path(place, name) for name in found]
    return files, circles


def is_nested(folder: str | Path) -> bool:
    """Return whether a folder is there and holds no image itself, but folders."""
    if not Path(folder).is_dir():
        return False
    with os.scandir(folder) as entries:
        listed = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith('.')]
    images = any(os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES for name, is_dir in listed if not is_dir)
    return not images and any(is_dir for _, is_dir in listed)


def find_sides(place: str | Path, role: str) -> tuple[Path, Path]:
    """Find the two sides of a set: ``input.lmdb`` and ``target.lmdb``, or the folders ``input`` and ``target``.

    Args:
        place: folder of the set; stores go before folders.
        role: what it is to the user, for the message.

    Raises:
        InputError: neither is there.
    """
    for suffix in ('.lmdb', ''):
        rainy, clean = (Path(place) / f'{side}{suffix}' for side in SIDES)
        if rainy.is_dir() and clean.is_dir():
            return rainy, clean
    raise InputError(f'{role}: no set in {place}; wanted input.lmdb and target.lmdb there, or folders input and target')


def lonely_problems(
    matched: Matched,
    inputs: Mapping[str, ImageFile],
    targets: Mapping[str, ImageFile],
    input_name: str,
    target_name: str,
) -> list[str]:
    """Return a sentence for each image without a partner."""
    remedy = f'add it, or remove the lonely one{matched.hint}'
    sides = (inputs, matched.lonely[0], input_name, target_name), (targets, matched.lonely[1], target_name, input_name)
    return [
        f'{name}: {side[lonely].name} has no partner in {other}; {remedy}'
        for side, names, name, other in sides
        for lonely in names
    ]


def is_key(key: str) -> bool:
    """Tell whether a name can be a key: BasicSR cuts keys at a dot, and meta_info.txt has a line of UTF-8 each."""
    encoded = key.encode('utf-8', 'ignore')  # without the bytes of a file name that are not UTF-8
    is_text = encoded.decode('utf-8') == key and len(f'{key}.'.splitlines()) == 1
    return is_text and '.' not in key and bool(key.strip()) and len(encoded) <= LONGEST_KEY
