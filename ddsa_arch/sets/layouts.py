"""Find the sets of the field in a folder or in zip archives, however they were unpacked.

A set is a folder with ``input`` and ``target`` in it; its own name tells which set it is. That covers
``train/Rain13K/{input,target}``, ``train/{input,target}``, ``Rain13k/train/{input,target}``,
``test/<Set>/{input,target}`` and ``<Set>/{input,target}``.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from ddsa_arch.errors import InputError
from ddsa_arch.files.archives import open_archive
from ddsa_arch.files.images import ImageFile, ZippedImage, files_in
from ddsa_arch.files.matching import SIDES, Pairs, pair_files
from ddsa_arch.sets.benchmarks import BENCHMARKS, Benchmark
from ddsa_arch.sets.published import Published, names, published_in

DEEPEST = 5  # folders below the root that are searched
LAYOUTS = 'train/Rain13K, train, Rain13K/train, test/SET or SET, each with input and target in it'


@dataclass(frozen=True)
class FoundSet:
    """The place of a set that was found.

    Attributes:
        benchmark: which one it is.
        place: the folder, or ``ARCHIVE, FOLDER``.
        sides: where its ``input`` and its ``target`` lie, likewise.
        files: all files of its ``input`` and of its ``target``.
        zipped: whether they lie in an archive.
        finder: finds the pairs of a set in a layout of its own.
    """

    benchmark: Benchmark
    place: str
    sides: tuple[str, str]
    files: tuple[Sequence[ImageFile], Sequence[ImageFile]]
    zipped: bool
    finder: Callable[[], Pairs] | None = None

    def pairs(self) -> Pairs:
        """Pair the files.

        Raises:
            InputError: they are no pairs.
        """
        if self.finder:
            return self.finder()
        return pair_files(*self.files, *self.sides, self.benchmark.strays)


def find_sets(root: str | Path) -> tuple[dict[str, FoundSet], list[str]]:
    """Find the benchmarks under a root, by name.

    Args:
        root: a folder, searched with the zip archives in it, or one archive.

    Returns:
        The sets, and a sentence for each place that was not taken, because an unpacked folder goes before an archive
        or because its name is no set's.

    Raises:
        InputError: no such folder; an archive that cannot be used; one set in two places; no set at all.
    """
    root = Path(root)
    if root.suffix.lower() == '.zip' and root.is_file():
        folders, archives, own = list[Path](), [root], list[tuple[Path, Published]]()
    elif root.is_dir():
        folders, archives, own = _search(root)
    else:
        raise InputError(f'--root: no folder or zip archive {root}')
    candidates = [
        FoundSet(each.benchmark, str(folder), ('', ''), ([], []), False, partial(each.find, folder))
        for folder, each in own
    ]
    taken = {folder for folder, _ in own}
    unknown: list[str] = []
    for folder in (folder for folder in folders if folder not in taken):
        name = folder.resolve().name  # of '.', too
        sides = {entry.name.lower(): entry for entry in folder.iterdir()}
        first, second = (sides[side] for side in SIDES)
        if benchmark := _named(name):
            files = files_in(first), files_in(second)
            candidates.append(FoundSet(benchmark, str(folder), (str(first), str(second)), files, zipped=False))
        else:
            unknown.append(f'{folder}: not the name of a set')
    for path in archives:
        found, strangers = _search_archive(path)
        candidates += found
        unknown += strangers
    chosen: dict[str, FoundSet] = {}
    for candidate in candidates:  # folders first
        name = candidate.benchmark.name
        if name not in chosen:
            chosen[name] = candidate
        elif candidate.zipped and not chosen[name].zipped:
            unknown.append(f'{candidate.place}: {name} is taken from {chosen[name].place}')
        else:
            raise InputError(f'{name} is there twice, {chosen[name].place} and {candidate.place}; remove one')
    if not chosen:
        seen = f' (seen: {"; ".join(unknown)})' if unknown else ''
        raise InputError(
            f'--root: no set in {root}{seen}; wanted {LAYOUTS}, unpacked or in a zip archive. '
            'For a set of your own: ddsa data lmdb'
        )
    order = [*BENCHMARKS, *names()]
    return {name: chosen[name] for name in sorted(chosen, key=order.index)}, unknown


def _named(folder_name: str) -> Benchmark | None:
    for benchmark in BENCHMARKS.values():
        if folder_name.lower() in benchmark.folders:
            return benchmark
    return None


def _search(root: Path) -> tuple[list[Path], list[Path], list[tuple[Path, Published]]]:
    """Find folders with both sides in them, zip archives, and sets in layouts of their own, in order of their paths.

    Links are followed once.
    """
    folders, archives, own, seen = [], [], [], set()
    for place, below, files in os.walk(root, followlinks=True):
        identity = os.stat(place)
        depth = len(Path(place).relative_to(root).parts)
        if (identity.st_dev, identity.st_ino) in seen or depth > DEEPEST:
            below.clear()
            continue
        seen.add((identity.st_dev, identity.st_ino))
        archives += [Path(place, file) for file in files if file.lower().endswith('.zip') and not file.startswith('.')]
        own += [(Path(place), published) for published in published_in(Path(place))]
        if {name.lower() for name in below} >= set(SIDES):
            folders.append(Path(place))
        below[:] = [n for n in below if n.lower() not in SIDES and not n.startswith('.') and not n.endswith('.lmdb')]
    return sorted(folders), sorted(archives), sorted(own, key=lambda found: found[0])


def _search_archive(path: Path) -> tuple[list[FoundSet], list[str]]:
    archive = open_archive(path)
    folders: dict[PurePosixPath, dict[str, list[zipfile.ZipInfo]]] = {}
    for info in archive.infolist():
        parts = PurePosixPath(info.filename.replace('\\', '/')).parts
        if info.is_dir() or len(parts) < 2 or parts[0] == '__MACOSX':
            continue
        side = parts[-2].lower()
        if side in SIDES:
            folders.setdefault(PurePosixPath(*parts[:-2]), {}).setdefault(side, []).append(info)
    found, unknown = [], []
    for folder, sides in folders.items():
        if len(sides) < 2:
            continue
        place = f'{path}, {folder}'
        benchmark = _named(folder.name or path.stem)  # input and target may lie at the top of Rain100L.zip
        if benchmark is None:
            unknown.append(f'{place}: not the name of a set')
            continue
        first, second = ([ZippedImage(archive, info) for info in sides[side]] for side in SIDES)
        name, other = (f'{place}/{side}' for side in SIDES)
        found.append(FoundSet(benchmark, place, (name, other), (first, second), zipped=True))
    return found, unknown
