"""The plan of ``ddsa derain``: which files are read and written, before the first of them is derained."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ddsa_arch.errors import InputError
from ddsa_arch.files.images import natural_key
from ddsa_arch.files.photo_formats import PHOTO_SUFFIXES, WRITTEN_SUFFIXES, written_suffix
from ddsa_arch.files.video_formats import VIDEO_SUFFIXES, output_suffix

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
    """What is to be done, and what is not.

    Args:
        jobs: to do, in order.
        refused: (file, reason) of what cannot be done.
        there: jobs whose results are there already.
        left_alone: how many files of a suffix there are in the folders besides; links to folders and what is no file,
            such as pipes, are counted under words of their own.
    """

    jobs: list[Job]
    refused: list[tuple[Path, str]]
    there: list[Job] = field(default_factory=list)
    left_alone: Counter[str] = field(default_factory=Counter)


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
        overwrite: do files again whose results are there; a file of the input is never replaced.
        shard: (r, n): every n-th file from the r-th on; the first of the shards tells what is refused or left alone in
            all.

    Raises:
        InputError: an input that is not there, nothing that can be derained, or nowhere to put it.
    """
    out = Path(out)
    _check_writable(out)
    if image_format not in FORMATS:
        raise InputError(f'--format {image_format!r} is not known; choose one of {", ".join(FORMATS)}')
    found: dict[Path, tuple[Path, str]] = {}  # each file once, however often it is named
    refused: list[tuple[Path, str]] = []
    left_alone: Counter[str] = Counter()
    for entry in inputs:
        for path, name in _files_of(entry, out, refused, left_alone):
            suffix = path.suffix.lower()
            if path.exists() and not path.is_file():
                refused.append((path, 'no regular file, such as a pipe or a device'))
            elif suffix in PHOTO_SUFFIXES or suffix in VIDEO_SUFFIXES:
                found.setdefault(_real(path), (path, name))
            else:
                refused.append((path, f'no image or video by its name (known: {KNOWN})'))
    if not found and not refused:
        besides = f'; {told_left_alone(left_alone)}' if left_alone else ''
        raise InputError(f'no image or video in {", ".join(map(str, inputs))} (known: {KNOWN}){besides}')
    jobs: dict[Path, Job] = {}
    for path, name in found.values():
        target = out / _renamed(Path(name), image_format)
        if target in jobs:
            other = jobs[target].source
            refused.append((path, f'its result would have the name of that of {other}, {target}; use another folder'))
        elif _real(target) in found:
            refused.append((path, f'its result would replace {target}, which is an input; use another folder'))
        else:
            jobs[target] = Job(path, target, name)
    rank, world = shard
    mine = list(jobs.values())[rank::world]  # before what is there is left out, which other shards may have written
    there = [] if overwrite else [job for job in mine if job.target.is_file()]
    todo = [job for job in mine if job not in there]
    return Plan(todo, refused, there, left_alone) if rank == 0 else Plan(todo, [], there)


def told_left_alone(counts: Counter[str]) -> str:
    """Return a sentence about files that are neither images nor videos."""
    kinds = ', '.join(f'{count} {suffix}' for suffix, count in counts.most_common())
    return f'{counts.total()} other file{"s" if counts.total() > 1 else ""} left alone ({kinds})'


def _real(path: Path) -> Path:
    """Return the path without links; one of links in a circle stays."""
    return Path(os.path.realpath(path))


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


def _files_of(
    entry: str | Path, out: Path, refused: list[tuple[Path, str]], left_alone: Counter[str]
) -> Iterator[tuple[Path, str]]:
    """Yield (file, name below the results) for what the user named; of a folder, images and videos alone.

    Args:
        refused: gets the folders that cannot be looked into.
        left_alone: gets the numbers of other files by suffix.
    """
    path = Path(entry)
    try:
        is_folder = path.is_dir()
    except OSError as error:  # not permitted, or a name that is too long
        raise InputError(f'{entry}: cannot be looked at ({error.strerror})') from error
    if is_folder:
        yield from _files_in(path, out, refused, left_alone)
    elif os.path.lexists(path):
        yield path, path.name
    else:
        matches = sorted(glob.glob(str(entry), recursive=True), key=natural_key)
        if not matches:
            raise InputError(f'{entry}: no such file or folder')
        for match in map(Path, matches):
            if match.is_dir():
                yield from _files_in(match, out, refused, left_alone)
            else:
                yield match, match.name


def _files_in(
    folder: Path, out: Path, refused: list[tuple[Path, str]], left_alone: Counter[str]
) -> Iterator[tuple[Path, str]]:
    results = _real(out)

    def refuse(error: OSError) -> None:
        refused.append((Path(error.filename), f'cannot be looked into ({error.strerror})'))

    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=refuse):  # follows no links, which may lead in a circle
        folders[:] = [name for name in folders if not name.startswith('.')]
        left_alone['links to folders'] += sum(os.path.islink(os.path.join(parent, name)) for name in folders)
        found += [Path(parent, name) for name in names if not name.startswith('.')]
    for path in sorted(found, key=lambda p: natural_key(str(p))):
        if results in _real(path).parents:
            continue
        if not path.is_file() and not (path.is_symlink() and not path.exists()):  # a link to nothing cannot be read
            left_alone['pipes or devices'] += 1
        elif path.suffix.lower() in PHOTO_SUFFIXES or path.suffix.lower() in VIDEO_SUFFIXES:
            yield path, str(path.relative_to(folder))
        else:
            left_alone[path.suffix.lower() or 'without a suffix'] += 1
    for kind in [kind for kind, count in left_alone.items() if not count]:
        del left_alone[kind]


def _renamed(name: Path, image_format: str) -> Path:
    if name.suffix.lower() in VIDEO_SUFFIXES:
        return name.with_suffix(output_suffix(name.suffix))
    return name.with_suffix(written_suffix(name.suffix) if image_format == AUTO else f'.{image_format}')
