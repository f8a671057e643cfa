"""Tell what is wrong with sets of image pairs, stored or as files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ddsa_arch.errors import InputError
from ddsa_arch.files.images import ImageFile, ZippedImage, byte_size, decode_image, natural_key, some
from ddsa_arch.files.lmdb_store import META_NAME, read_entries, read_value, stored_keys, value_sizes
from ddsa_arch.files.matching import Pairs
from ddsa_arch.files.name_rules import AUTO, match_names
from ddsa_arch.sets.pair_stores import load_pair


def store_problems(path: str | Path, progress: Callable[[Iterable], Iterable] = iter) -> list[str]:
    """Tell what is wrong with a store: compare meta_info.txt with the database, and decode every image.

    Args:
        path: the folder ``X.lmdb``.
        progress: wraps the iterable of keys, such as tqdm.

    Returns:
        One sentence for each problem, naming the key; empty for a sound store.
    """
    try:
        entries, stored = read_entries(path), stored_keys(path)
    except InputError as error:
        return [str(error)]
    problems = [f'{path}: {key!r} is in {META_NAME} but not in data.mdb' for key in entries if key not in stored]
    problems += [f'{path}: {key!r} is in data.mdb but not in {META_NAME}' for key in sorted(stored - entries.keys())]

    def check(key: str) -> str | None:
        try:
            height, width = decode_image(read_value(path, key), f'{path}, {key}').shape[:2]
        except InputError as error:
            return str(error)
        noted = entries[key].shape[:2]
        if noted != (height, width):
            return f'{path}, {key}: the image is {width} x {height}, {META_NAME} says {noted[1]} x {noted[0]}'
        return None

    present = [key for key in entries if key in stored]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        problems += filter(None, progress(pool.map(check, present)))
    return problems


def pair_problems(input_store: str | Path, target_store: str | Path, match: str = AUTO) -> list[str]:
    """Tell where the two sides of a set differ in keys or sizes; empty where each image has an equal partner.

    Args:
        input_store: rainy images.
        target_store: clean images.
        match: the rule for keys, see ``files.name_rules``.
    """
    try:
        inputs, targets = read_entries(input_store), read_entries(target_store)
    except InputError:
        return []  # the store's own check names it
    try:
        matched = match_names(inputs, targets, match, str(input_store), str(target_store))
    except InputError as error:
        return [str(error)]
    partner = matched.partner
    problems = [f'{key!r} is in {input_store} but not in {target_store}{matched.hint}' for key in matched.lonely[0]]
    problems += [f'{key!r} is in {target_store} but not in {input_store}{matched.hint}' for key in matched.lonely[1]]
    if os.path.realpath(input_store) == os.path.realpath(target_store):
        problems.append(f'{input_store} and {target_store} are one store')
    else:
        equal = [key for key in partner if _equal_values(input_store, key, target_store, partner[key])]
        if equal:
            problems.append(f'input and target are one file in {len(equal)} pairs: {some(equal)}')
    for key, target in partner.items():
        if inputs[key].shape[:2] != targets[target].shape[:2]:
            sizes = ' and '.join(f'{w} x {h}' for h, w, _ in (inputs[key].shape, targets[target].shape))
            problems.append(f'{key!r}: input and target have unequal sizes, {sizes}')
    return problems


def _equal_values(input_store: str | Path, key: str, target_store: str | Path, target_key: str) -> bool:
    try:
        return read_value(input_store, key) == read_value(target_store, target_key)
    except InputError:
        return False  # the store's own check names it


def file_problems(pairs: Pairs, progress: Callable[[Iterable], Iterable] = iter) -> list[str]:
    """Tell what is wrong with pairs of files: what has no partner, cannot be read, or differs in size or not at all.

    Args:
        pairs: as ``files.pair_sources`` finds them.
        progress: wraps the iterable of pairs, such as tqdm.

    Returns:
        One sentence for each problem, naming the file.
    """
    equal: list[str] = []

    def check(key: str) -> list[str]:
        target = pairs.target_of(key)
        loaded = load_pair(key, target, (pairs.inputs[key], pairs.targets[target]))
        if len(loaded.data) == 2 and loaded.data[0] == loaded.data[1]:
            equal.append(key)
        return loaded.problems

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        told = [problem for found in progress(pool.map(check, pairs.inputs)) for problem in found]
    if equal:
        told.append(f'input and target are one file in {len(equal)} pairs: {some(sorted(equal, key=natural_key))}')
    return pairs.problems + told


def source_problems(store: str | Path, files: Mapping[str, ImageFile]) -> list[str]:
    """Tell where a store differs from the files that it was made of, by names and sizes in bytes.

    Args:
        store: a sound store.
        files: by stem; those that the store lacks are not told.
    """
    sizes = value_sizes(store)
    problems = [f'{store}: {key!r} is not among the files' for key in sizes if key not in files]
    problems += [
        f'{store}: {key!r} has {size} bytes and {files[key]} has {byte_size(files[key])}'
        for key, size in sizes.items()
        if key in files and not _may_have(files[key], size)
    ]
    return problems


def _may_have(file: ImageFile, size: int) -> bool:
    """Return whether a stored image of this many bytes may be a file's; of one that is made, a bound alone is known."""
    known = byte_size(file)
    return size == known if isinstance(file, Path | ZippedImage) else size <= known
