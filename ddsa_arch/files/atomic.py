"""Files and folders that are either whole or absent."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from ddsa_arch.errors import InputError

NO_ROOM = 2**20  # bytes that a full disk may still have, in pieces too small for what is written
WRITING = ('write', 'writing', 'inline_container')  # words of torch about a file that it could not write
LONGEST_NAME = 255  # bytes, on nearly every disk
OLD = 'old'  # what is being replaced
# NAME.PROCESS.part, NAME.PROCESS.old.part, and NAME.PROCESS.part.mp4 where a suffix tells the kind of file
PART = re.compile(r'(?P<name>.+)\.(?P<process>\d+)(\.(?P<kind>\w+))?\.part(\.\w+)?')


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give the path of a temporary neighbour to write; it takes the name ``path`` when the block ends well.

    The neighbour is removed when the block raises. Missing parent folders are made.
    """
    path = Path(path)
    part = _beside(path, 'part')
    try:
        with telling_full_disks(path.parent):  # before the part is removed, which makes room again
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            os.replace(part, path)
    finally:
        with suppress(OSError):  # such as a name that is too long, of which the block tells
            part.unlink(missing_ok=True)


def _beside(path: Path, kind: str) -> Path:
    """Return the path of a temporary neighbour; a long name is shortened, so that the neighbour's can be made."""
    tail = f'.{os.getpid()}.{kind}'
    too_long = len(os.fsencode(path.name)) > LONGEST_NAME  # it could not take its name in the end
    return path.with_name(path.name + tail if too_long else with_tail(path.name, tail))


def with_tail(name: str, tail: str) -> str:
    """Return a file name with a tail, cut before the tail where it would be longer than a name may be."""
    while name and len(os.fsencode(name + tail)) > LONGEST_NAME:
        name = name[:-1]
    return name + tail


@contextmanager
def telling_full_disks(folder: str | Path) -> Iterator[None]:
    """Turn the errors of a block that writes into a folder, whose disk is full, into an InputError that says so."""
    try:
        yield
    except InputError:
        raise
    except (OSError, RuntimeError) as error:  # torch and OpenCV do not tell why they could not write
        if is_full(error) or (_says_writing_failed(error) and _room(folder) < NO_ROOM):
            raise InputError(full_disk(folder)) from error
        raise


def is_full(error: BaseException) -> bool:
    """Tell whether an error says that a disk, or a user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def full_disk(folder: str | Path) -> str:
    """Return the message about a full disk."""
    return f'the disk of {folder} is full; make room on it, or choose a folder on another disk'


def _says_writing_failed(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in WRITING)


def _room(folder: str | Path) -> float:
    """Return the bytes that are free on the disk of a folder."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return math.inf


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary neighbour folder to fill; it takes the name ``path`` when the block ends well.

    A folder of that name is replaced, and stays until then. The neighbour is removed when the block raises. Missing
    parent folders are made.
    """
    path = Path(path)
    part, old = (_beside(path, kind) for kind in ('part', f'{OLD}.part'))
    with telling_full_disks(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
    try:
        with telling_full_disks(path.parent):
            yield part
        replaces = path.exists()
        if replaces:
            os.replace(path, old)
        try:
            os.replace(part, path)
        except OSError:
            if replaces:
                os.replace(old, path)
            raise
    finally:
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)


def sweep(folder: str | Path, name: str | None = None, deep: bool = False) -> None:
    """Remove what killed processes of this machine have left half-written.

    A folder that was about to be replaced when its process was killed gets its name back.

    Args:
        folder: may be missing.
        name: look for parts of this file or folder alone.
        deep: look into the folders within as well.
    """
    folder = Path(folder)
    found = folder.rglob('*.part*') if deep else folder.glob('*.part*')
    for path in sorted(found):
        part = PART.fullmatch(path.name)
        if part is None or (name is not None and part['name'] != name) or psutil.pid_exists(int(part['process'])):
            continue
        final = path.with_name(part['name'])
        if part['kind'] == OLD and not final.exists():
            path.rename(final)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with atomic_path(path) as part:
        part.write_text(text, encoding='utf-8')


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + '\n')
