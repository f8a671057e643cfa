"""Pair the image files of a set by stem, and tell of every file that has no place in a pair."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ddsa_arch.errors import InputError
from ddsa_arch.files.images import IMAGE_SUFFIXES, ImageFile, sort_files

SIDES = ('input', 'target')  # of a pair: rainy and clean
LONGEST_KEY = 500  # bytes; LMDB's limit is 511


@dataclass
class Pairs:
    """The pairs of a set.

    Attributes:
        inputs: rainy images by stem, in natural order.
        targets: clean images, the same stems in the same order.
        problems: a sentence for each stem that is not a pair or cannot be a key.
        passed_over: files that are no images, and those that are known to be shipped by mistake.
    """

    inputs: dict[str, ImageFile] = field(default_factory=dict)
    targets: dict[str, ImageFile] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)


def pair_files(
    inputs: Iterable[ImageFile],
    targets: Iterable[ImageFile],
    input_name: str,
    target_name: str,
    strays: Collection[str] = (),
) -> Pairs:
    """Pair files by stem. Nothing is read but names.

    Args:
        inputs: all files of the rainy side.
        targets: all files of the clean side.
        input_name: of the rainy side, for messages.
        target_name: of the clean side.
        strays: stems to leave out.

    Raises:
        InputError: a side without images, or two sides without a stem in common.
    """
    pairs = Pairs()
    sides = []
    for files, name in ((inputs, input_name), (targets, target_name)):
        found = sort_files(files)
        pairs.passed_over += [str(file) for file in found.others]
        pairs.problems += [
            f'{name}: two images of one name, {first.name} and {second.name}; keep one of them'
            for first, second in found.doubles
        ]
        pairs.passed_over += [str(file) for stem, file in found.images.items() if stem in strays]
        doubled = {file.stem for file, _ in found.doubles}
        images = {stem: file for stem, file in found.images.items() if stem not in strays}
        if not images:
            raise InputError(f'{name}: no image (looked for {", ".join(IMAGE_SUFFIXES)})')
        sides.append((images, doubled))
    (rainy, rainy_doubles), (clean, clean_doubles) = sides
    if not rainy.keys() & clean.keys():
        raise InputError(
            f'no image of {input_name} has a partner in {target_name}: they hold names such as '
            f'{next(iter(rainy.values())).name} and {next(iter(clean.values())).name}, and pairs match by stem; '
            'rename one side'
        )
    pairs.problems += _lonely(rainy, clean, input_name, target_name) + _lonely(clean, rainy, target_name, input_name)
    for stem in rainy:
        if stem not in clean or stem in rainy_doubles or stem in clean_doubles:
            continue
        if not _is_key(stem):
            pairs.problems.append(
                f'{stem!r} cannot be the key of an LMDB; rename both images of the pair '
                f'(no dot before the suffix, not blank, one line of UTF-8 of at most {LONGEST_KEY} bytes)'
            )
            continue
        pairs.inputs[stem], pairs.targets[stem] = rainy[stem], clean[stem]
    return pairs


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


def _lonely(side: dict[str, ImageFile], other: dict[str, ImageFile], name: str, other_name: str) -> list[str]:
    remedy = 'add it, or remove the lonely one'
    return [
        f'{name}: {file.name} has no partner in {other_name}; {remedy}'
        for stem, file in side.items()
        if stem not in other
    ]


def _is_key(stem: str) -> bool:
    """Tell whether a stem can be a key: BasicSR cuts keys at a dot, and meta_info.txt has a line of UTF-8 each."""
    encoded = stem.encode('utf-8', 'ignore')  # without the bytes of a file name that are not UTF-8
    is_text = encoded.decode('utf-8') == stem and len(f'{stem}.'.splitlines()) == 1
    return is_text and '.' not in stem and bool(stem.strip()) and len(encoded) <= LONGEST_KEY
