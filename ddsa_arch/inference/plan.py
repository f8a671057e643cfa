"""The plan of ``ddsa derain``: which files are read and written, before the first of them is derained."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ddsa_arch.errors import InputError
from ddsa_arch.files.images import natural_key
from ddsa_arch.files.photo_formats import PHOTO_SUFFIXES, WRITTEN_SUFFIXES, written_suffix
from ddsa_arch.files.videos import VIDEO_SUFFIXES, output_suffix

AUTO = 'auto'
FORMATS = (AUTO, *(suffix[1:] for suffix in WRITTEN_SUFFIXES))
COMPARED = 'compare'  # folder of the pictures of --compare
KNOWN = ', '.join((*PHOTO_SUFFIXES, *VIDEO_SUFFIXES))


@dataclass(frozen=True)
class Job:
    """A file to derain, and where the result goes."""

    source: Path
    target: Path
    name: str  # below the folder that was named, as the result is below the folder of the results

    @property
    def is_video(self) -> bool:
        return self.source.suffix.lower() in VIDEO_SUFFIXES


@dataclass(frozen=True)
class Plan:
    """What is to be done, and what cannot be: (file, reason)."""

    jobs: list[Job]
    refused: list[tuple[Path, str]]


def plan(
    inputs: Sequence[str | Path],
    out: str | Path,
    image_format: str = AUTO,
    overwrite: bool = False,
    shard: tuple[int, int] = (0, 1),
) -> Plan:
    """
    Args:
        inputs: files, folders (with all in them) and patterns such as ``photos/*.jpg``.
        out: folder of the results, in which the folders of the input are repeated. It is not searched itself.
        image_format: ``auto`` keeps that of each image.
        overwrite: replace results that are there; never a file of the input.
        shard: (r, n): every n-th file from the r-th on; the first of the shards tells what is refused in all.

    Raises:
        InputError: an input that is not there, nothing that can be derained, or nowhere to put it.
    """
    out = Path(out)
    _check_writable(out)
    if image_format not in FORMATS:
        raise InputError(f'--format {image_format!r} is not known; choose one of {", ".join(FORMATS)}')
    found: dict[Path, tuple[Path, str]] = {}  # each file once, however often it is named
    refused: list[tuple[Path, str]] = []
    for entry in inputs:
        for path, name in _files_of(entry, out, refused):
            suffix = path.suffix.lower()
            if suffix in PHOTO_SUFFIXES or suffix in VIDEO_SUFFIXES:
                found.setdefault(path.resolve(), (path, name))
            else:
                refused.append((path, f'no image or video by its name (known: {KNOWN})'))
    if not found and not refused:
        raise InputError(f'no image or video in {", ".join(map(str, inputs))} (known: {KNOWN})')
    jobs: dict[Path, Job] = {}
    for path, name in found.values():
        target = out / _renamed(Path(name), image_format)
        if target in jobs:
            other = jobs[target].source
            refused.append((path, f'its result would have the name of that of {other}, {target}; use another folder'))
        elif target.resolve() in found:
            refused.append((path, f'its result would replace {target}, which is an input; use another folder'))
        else:
            jobs[target] = Job(path, target, name)
    rank, world = shard
    mine = list(jobs.values())[rank::world]  # before what is there is left out, which other shards may have written
    there = [job for job in mine if job.target.exists() and not overwrite]
    if rank:
        refused = []
    refused += [(job.source, f'{job.target} is there already; --overwrite replaces it') for job in there]
    return Plan([job for job in mine if job not in there], refused)


def _check_writable(out: Path) -> None:
    """Check that the results can be written, before hours of work are lost.

    Raises:
        InputError: the folder of the results is a file, or this user may not write into it or make it.
    """
    there = next(path for path in (out.absolute(), *out.absolute().parents) if os.path.exists(path))
    if not there.is_dir():
        raise InputError(f'-o {out}: {there} is a file, wanted a folder for the results')
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f'-o {out}: {there} cannot be written into (permission denied); choose another folder')


def _files_of(entry: str | Path, out: Path, refused: list[tuple[Path, str]]) -> Iterator[tuple[Path, str]]:
    """Yield (file, name below the results) for what the user named; of a folder, images and videos alone.

    Args:
        refused: gets the folders that cannot be looked into.
    """
    path = Path(entry)
    try:
        is_folder = path.is_dir()
    except PermissionError as error:
        raise InputError(f'{entry}: cannot be looked at ({error.strerror})') from error
    if is_folder:
        yield from _files_in(path, out, refused)
    elif path.exists():
        yield path, path.name
    else:
        matches = sorted(glob.glob(str(entry), recursive=True), key=natural_key)
        if not matches:
            raise InputError(f'{entry}: no such file or folder')
        for match in map(Path, matches):
            if match.is_dir():
                yield from _files_in(match, out, refused)
            else:
                yield match, match.name


def _files_in(folder: Path, out: Path, refused: list[tuple[Path, str]]) -> Iterator[tuple[Path, str]]:
    results = out.resolve()

    def refuse(error: OSError) -> None:
        refused.append((Path(error.filename), f'cannot be looked into ({error.strerror})'))

    found = (Path(parent, name) for parent, _, names in os.walk(folder, onerror=refuse) for name in names)
    # a link to nothing is a file that cannot be read; pipes and devices are left alone
    files = (p for p in found if p.is_file() or (p.is_symlink() and not p.exists()))
    for path in sorted(files, key=lambda p: natural_key(str(p))):
        within = path.relative_to(folder)
        if any(part.startswith('.') for part in within.parts) or results in path.resolve().parents:
            continue
        if path.suffix.lower() in PHOTO_SUFFIXES or path.suffix.lower() in VIDEO_SUFFIXES:
            yield path, str(within)


def _renamed(name: Path, image_format: str) -> Path:
    if name.suffix.lower() in VIDEO_SUFFIXES:
        return name.with_suffix(output_suffix(name.suffix))
    return name.with_suffix(written_suffix(name.suffix) if image_format == AUTO else f'.{image_format}')
