"""LMDB stores of images in BasicSR's layout: a folder ``X.lmdb`` with ``data.mdb`` and ``meta_info.txt``.

A line of meta_info.txt reads ``NAME.png (H,W,C) 1``; NAME is the key of the value that holds the encoded image.
Stores written here keep the original bytes of every file (BasicSR's own tool re-encodes JPEG as PNG, four times
larger), and stock BasicSR reads them. A store is written as ``X.lmdb.part`` and takes its name when it is whole.
``sets.pair_stores`` makes the two stores of a set from image files.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lmdb

from ddsa_arch.errors import InputError

META_NAME = 'meta_info.txt'
PART_SUFFIX = '.part'
COMMIT_EVERY = 256  # images per transaction: what an interruption can cost
MAP_SPARE = 64 << 20  # room beyond the images, in bytes
PAGE = 4096  # of LMDB, in bytes
PROBE = """\
import lmdb, sys
with lmdb.open(sys.argv[1], readonly=True, lock=False) as environment, environment.begin(buffers=True) as transaction:
    found = sum(1 for key, value in transaction.cursor() if bytes(value[-1:]) is not None)  # touches every page
    sys.exit(found != environment.stat()['entries'])
"""
META_LINE = re.compile(r'^(?P<name>.+?)(?:\.\w+)? \((?P<h>\d+),(?P<w>\d+),(?P<c>\d+)\)(?: (?P<level>-?\d+))?\s*$')


@dataclass(frozen=True)
class Entry:
    """One image of a store: its key, file name with suffix, and (H, W, C)."""

    key: str
    name: str
    shape: tuple[int, int, int]


# --- reading -----------------------------------------------------------------------------------------------

# lmdb refuses to open a database twice in a process, and an open one must not cross a fork: one shared handle per
# database and process, dropped in a forked child. Beside it stands the identity of its file, so that a store that
# was made again is opened again.
_open_environments: dict[str, tuple[lmdb.Environment, Identity]] = {}
_opening = threading.Lock()


def _forget_environments() -> None:
    global _opening
    _opening = threading.Lock()  # a thread of the parent may have held it
    for environment, _ in _open_environments.values():
        environment.close()
    _open_environments.clear()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_forget_environments)


def is_store(path: str | Path) -> bool:
    """Whether a path names an LMDB store, by its suffix, as BasicSR tells."""
    return str(path).rstrip('/\\').endswith('.lmdb')


def read_entries(path: str | Path, role: str = 'LMDB') -> dict[str, Entry]:
    """The entries of a store by key, in the order of its meta_info.txt.

    Args:
        path: the folder ``X.lmdb``.
        role: what the store is to the user (an option's key), for the message.

    Raises:
        InputError: no such store, or a meta_info.txt that is missing, empty or unreadable.
    """
    meta = Path(path) / META_NAME
    if not Path(path).is_dir():
        raise InputError(f'{role}: no LMDB {path}; make it with: ddsa data lmdb')
    try:
        lines = meta.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else 'not UTF-8'
        raise InputError(f'{role}: {meta} cannot be read ({reason}); make the store again') from error
    entries = {}
    for line in filter(str.strip, lines):
        match = META_LINE.match(line)
        if not match:
            raise InputError(f'{role}: {meta} has a line {line!r}, wanted "NAME.png (H,W,C) 1"; make the store again')
        shape = (int(match['h']), int(match['w']), int(match['c']))
        entries[match['name']] = Entry(match['name'], line.rsplit(' (', 1)[0], shape)
    if not entries:
        raise InputError(f'{role}: {meta} is empty, so the store was left half-made; delete {path}, make it again')
    return entries


def stored_keys(path: str | Path) -> set[str]:
    """The keys that are in the database, whatever meta_info.txt says.

    Raises:
        InputError: there is no readable store.
    """
    return set(value_sizes(path))


def value_sizes(path: str | Path) -> dict[str, int]:
    """The size in bytes of every image in the database, by key.

    Raises:
        InputError: there is no readable store.
    """
    with _reading(path) as transaction, transaction.cursor() as cursor:
        return {bytes(key).decode('utf-8', 'replace'): len(value) for key, value in cursor}


def read_value(path: str | Path, key: str) -> bytes:
    """The encoded image of a key.

    Raises:
        InputError: the key is not in the store, or there is no store.
    """
    with _reading(path) as transaction:
        found = transaction.get(key.encode('utf-8'))
        value = None if found is None else bytes(found)
    if value is None:
        raise InputError(f'{path}: no image {key!r}; meta_info.txt and data.mdb differ, make the store again')
    return value


Identity = tuple[int, int, int, int]


def identity_of(path: str | Path) -> Identity:
    """What changes when a store is made again: device, inode, size and time of its database.

    Raises:
        InputError: there is no database.
    """
    try:
        status = os.stat(os.path.join(os.path.realpath(path), 'data.mdb'))
    except OSError as error:
        raise InputError(f'{path}: no readable LMDB ({error.strerror}); make it with: ddsa data lmdb') from error
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _environment(path: str | Path) -> lmdb.Environment:
    """Return this process's handle of a store."""
    place = os.path.realpath(path)
    identity = identity_of(path)
    try:
        with _opening:
            if place in _open_environments:
                environment, opened = _open_environments[place]
                if opened == identity:
                    return environment
                environment.close()
                del _open_environments[place]
            environment = lmdb.open(place, readonly=True, lock=False, readahead=False, meminit=False, max_readers=1024)
            _check_whole(environment, identity[2])
            _open_environments[place] = environment, identity
            return environment
    except (OSError, lmdb.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f'{path}: no readable LMDB ({reason}); make it with: ddsa data lmdb') from error


def _check_whole(environment: lmdb.Environment, size: int) -> None:
    """Reading a page beyond the end of the file would end the process with SIGBUS, so a file cut off is not read."""
    page = environment.stat()['psize']
    needed = (environment.info()['last_pgno'] + 1) * page
    # a last page that is free may be missing from a sound database, which another process finds out without danger
    if size < needed and (size % page or not _is_readable(environment.path())):
        environment.close()
        raise lmdb.Error(f'data.mdb is cut off: it has {size:,} bytes of {needed:,}')


def _is_readable(place: str) -> bool:
    return subprocess.run([sys.executable, '-c', PROBE, place], capture_output=True).returncode == 0


@contextmanager
def _reading(path: str | Path) -> Iterator[lmdb.Transaction]:
    """A transaction; damaged pages become one message."""
    try:
        with _environment(path).begin(buffers=True) as transaction:
            yield transaction
    except lmdb.Error as error:
        raise InputError(f'{path}: data.mdb is damaged ({error}); make the store again') from error


# --- writing -----------------------------------------------------------------------------------------------


class StoreWriter:
    """Writes one store as ``X.lmdb.part``, which takes its name when it is whole.

    Args:
        final: ``X.lmdb``, the name that :meth:`publish` gives it.
        bytes_of_images: of every image that will be put, which bounds the size of the database.
    """

    def __init__(self, final: Path, bytes_of_images: Sequence[int]) -> None:
        self.final = final
        self.part = final.with_name(final.name + PART_SUFFIX)
        self.part.mkdir(parents=True, exist_ok=True)
        data = self.part / 'data.mdb'
        left = data.stat().st_size if data.exists() else 0  # by an interrupted run, perhaps of other images
        pages = sum(2 * size + 2 * PAGE for size in bytes_of_images)  # a value begins on a page of its own
        self.environment = lmdb.open(str(self.part), map_size=left + pages + MAP_SPARE, readahead=False)
        self.transaction = self.environment.begin(write=True)
        self.pending = True  # whether the transaction has still to be committed
        self.entries: list[Entry] = []

    def known_shape(self, key: str, data: bytes) -> tuple[int, int, int] | None:
        """The shape of an image that an interrupted run has checked and stored, None if it has not."""
        with self.environment.begin() as transaction:
            shape = transaction.get(_shape_key(key))
            if shape is None or transaction.get(key.encode('utf-8')) != data:
                return None
        height, width, channels = map(int, shape.split(b','))
        return height, width, channels

    def put(self, entry: Entry, data: bytes) -> None:
        """Store an image that was checked."""
        self.transaction.put(entry.key.encode('utf-8'), data)
        self.transaction.put(_shape_key(entry.key), ','.join(map(str, entry.shape)).encode())
        self.entries.append(entry)
        if len(self.entries) % COMMIT_EVERY == 0:
            self.transaction.commit()
            self.transaction = self.environment.begin(write=True)

    def finish(self) -> None:
        """Drop the notes for an interruption, check the count, write meta_info.txt last."""
        wanted = {entry.key.encode('utf-8') for entry in self.entries}
        with self.transaction.cursor() as cursor:
            surplus = [bytes(key) for key in cursor.iternext(values=False) if bytes(key) not in wanted]
        for key in surplus:  # shape notes, and images that an interrupted run of other files left
            self.transaction.delete(key)
        self.transaction.commit()
        self.pending = False
        self.environment.sync(True)
        self._write_last_page()
        stored = self.environment.stat()['entries']
        if stored != len(self.entries):
            raise InputError(f'{self.part} holds {stored} images, wanted {len(self.entries)}; run the command again')
        lines = [f'{e.name} ({e.shape[0]},{e.shape[1]},{e.shape[2]}) 1\n' for e in self.entries]
        with (self.part / META_NAME).open('w', encoding='utf-8') as meta:
            meta.writelines(lines)
            meta.flush()
            os.fsync(meta.fileno())

    def _write_last_page(self) -> None:
        """Lengthen the file to its last page, which LMDB leaves out if it is free; readers take it for cut off else."""
        size = (self.environment.info()['last_pgno'] + 1) * self.environment.stat()['psize']
        data = self.part / 'data.mdb'
        if data.stat().st_size < size:
            os.truncate(data, size)

    def close(self) -> None:
        if self.pending:
            self.transaction.abort()
            self.pending = False
        self.environment.close()

    def publish(self) -> None:
        os.replace(self.part, self.final)

    def discard(self) -> None:
        self.close()
        shutil.rmtree(self.part, ignore_errors=True)


def _shape_key(key: str) -> bytes:
    """Return the key for a checked image's shape in an unfinished store; no image's key begins with a zero byte."""
    return b'\0' + key.encode('utf-8')
