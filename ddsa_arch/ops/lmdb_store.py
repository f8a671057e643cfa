"""LMDB stores of images in BasicSR's layout: a folder ``X.lmdb`` with ``data.mdb`` and ``meta_info.txt``.

A line of meta_info.txt reads ``NAME.png (H,W,C) 1``; NAME is the key of the value that holds the encoded image.
Stores written here keep the original bytes of every file (BasicSR's own tool re-encodes JPEG as PNG, four times
larger), and stock BasicSR reads them. A store is written as ``X.lmdb.part`` and takes its name when it is whole.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import lmdb

from ddsa_arch.ops.errors import InputError
from ddsa_arch.ops.images import decode_image, some

META_NAME = 'meta_info.txt'
PART_SUFFIX = '.part'
COMMIT_EVERY = 256  # images per transaction: what an interruption can cost
MAP_SPARE = 64 << 20  # room beyond the images, in bytes
PAGE = 4096  # of LMDB, in bytes
LONGEST_KEY = 500  # bytes; LMDB's limit is 511
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
_open_environments: dict[str, tuple[lmdb.Environment, tuple[int, int]]] = {}


def _forget_environments() -> None:
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
    with _environment(path).begin() as transaction, transaction.cursor() as cursor:
        return {bytes(key).decode('utf-8', 'replace') for key in cursor.iternext(values=False)}


def read_value(path: str | Path, key: str) -> bytes:
    """The encoded image of a key.

    Raises:
        InputError: the key is not in the store, or there is no store.
    """
    with _environment(path).begin() as transaction:
        value = transaction.get(key.encode('utf-8'))
    if value is None:
        raise InputError(f'{path}: no image {key!r}; meta_info.txt and data.mdb differ, make the store again')
    return value


def _environment(path: str | Path) -> lmdb.Environment:
    """This process's handle of a store."""
    place = os.path.realpath(path)
    try:
        status = os.stat(os.path.join(place, 'data.mdb'))
        identity = (status.st_dev, status.st_ino)
        environment, opened = _open_environments.get(place, (None, None))
        if opened != identity:
            if environment is not None:
                environment.close()
                del _open_environments[place]
            environment = lmdb.open(place, readonly=True, lock=False, readahead=False, meminit=False, max_readers=1024)
            _open_environments[place] = environment, identity
    except (OSError, lmdb.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f'{path}: no readable LMDB ({reason}); make it with: ddsa data lmdb') from error
    return environment


# --- writing -----------------------------------------------------------------------------------------------


def write_pair_stores(
    inputs: dict[str, Path],
    targets: dict[str, Path],
    out: str | Path,
    progress: Callable[[Iterable], Iterable] = iter,
) -> tuple[Path, Path]:
    """Write ``out/input.lmdb`` and ``out/target.lmdb`` from image files paired by stem.

    Every image is decoded once before it is stored, and all that is wrong is reported together. Nothing is left
    behind by an error in the images; after a kill or a full disk the next call goes on where it stopped.

    Args:
        inputs: rainy image files by stem.
        targets: clean image files, the same stems.
        out: folder of the two stores.
        progress: wraps the iterable of pairs, such as tqdm.

    Returns:
        The paths of the two stores.

    Raises:
        InputError: a store is there already; a key cannot be used; an image is broken; a pair has unequal sizes; the
            folder cannot be written.
    """
    out = Path(out)
    stems = list(inputs)
    _check_keys(stems)
    finals = [out / 'input.lmdb', out / 'target.lmdb']
    _reopen_half_published(finals)
    for final in finals:
        if final.exists():
            raise InputError(f'{final} is there already; delete it first, or give another --out')
    sizes = [[path.stat().st_size for path in side.values()] for side in (inputs, targets)]
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    writers = []
    problems, unusable = [], 0
    try:
        for final, bytes_of_images in zip(finals, sizes, strict=True):
            writers.append(_StoreWriter(final, bytes_of_images))
        # an error must not close an environment that a loading thread reads
        with contextlib.closing(_load_ahead(stems, inputs, targets, writers, progress)) as pairs:
            for stem, loaded in zip(stems, pairs, strict=True):
                problems += loaded.problems
                unusable += bool(loaded.problems)
                if not problems:
                    for writer, path, data, shape in zip(
                        writers, (inputs[stem], targets[stem]), loaded.data, loaded.shapes, strict=True
                    ):
                        writer.put(Entry(stem, path.name, shape), data)
        if problems:
            raise InputError(f'{unusable} of {len(stems)} pairs cannot be used:\n  ' + '\n  '.join(problems))
        for writer in writers:
            writer.finish()
    except InputError:
        for writer in writers:
            writer.discard()
        raise
    except (OSError, lmdb.Error) as error:
        raise InputError(
            f'{out}: cannot be written ({error}); mend that and run the command again, which goes on where it stopped, '
            f'or delete {out / "*.lmdb.part"}, or give another --out'
        ) from error
    finally:
        for writer in writers:
            writer.close()
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only if empty
    for writer in writers:
        writer.publish()
    return finals[0], finals[1]


def _reopen_half_published(finals: Sequence[Path]) -> None:
    """After a kill between the two renames one store is whole and the other still a part: go on with both."""
    parts = [final.with_name(final.name + PART_SUFFIX) for final in finals]
    for whole, part, other_whole, other_part in (*zip(finals, parts, finals[::-1], parts[::-1], strict=True),):
        if whole.exists() and not part.exists() and other_part.exists() and not other_whole.exists():
            os.replace(whole, part)


def _check_keys(stems: Sequence[str]) -> None:
    """BasicSR cuts a key at its first dot, and meta_info.txt is UTF-8 with a line for each key."""
    bad = []
    for stem in stems:
        encoded = stem.encode('utf-8', 'ignore')  # without the bytes of a file name that are not UTF-8
        is_text = encoded.decode('utf-8') == stem and len(f'{stem}.'.splitlines()) == 1
        if not is_text or '.' in stem or not stem.strip() or len(encoded) > LONGEST_KEY:
            bad.append(repr(stem))
    if bad:
        raise InputError(
            f'{len(bad)} names cannot be keys of an LMDB: {some(bad)}; rename the files '
            f'(no dot before the suffix, not blank, one line of UTF-8 of at most {LONGEST_KEY} bytes)'
        )


@dataclass
class _Loaded:
    data: list[bytes]
    shapes: list[tuple[int, int, int]]
    problems: list[str]


def _load_ahead(
    stems: Sequence[str],
    inputs: dict[str, Path],
    targets: dict[str, Path],
    writers: Sequence[_StoreWriter],
    progress: Callable[[Iterable], Iterable],
) -> Iterator[_Loaded]:
    """Read and check the pairs on all cores, in order, a bounded number ahead of the writer."""

    def load(stem: str) -> _Loaded:
        loaded = _Loaded([], [], [])
        for path, writer in zip((inputs[stem], targets[stem]), writers, strict=True):
            try:
                data = path.read_bytes()
                shape = writer.known_shape(stem, data) or decode_image(data, str(path)).shape
            except (OSError, InputError) as error:
                loaded.problems.append(str(error))
                continue
            loaded.data.append(data)
            loaded.shapes.append(shape)
        if len(loaded.shapes) == 2 and loaded.shapes[0] != loaded.shapes[1]:
            sizes = ' and '.join(f'{w} x {h}' for h, w, _ in loaded.shapes)
            loaded.problems.append(f'{stem}: input and target have unequal sizes, {sizes}')
        return loaded

    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        waiting = []
        upcoming = iter(stems)
        for _ in progress(stems):
            while len(waiting) < workers * 4 and (stem := next(upcoming, None)) is not None:
                waiting.append(pool.submit(load, stem))
            yield waiting.pop(0).result()


class _StoreWriter:
    """One store in the making, ``X.lmdb.part``."""

    def __init__(self, final: Path, bytes_of_images: Sequence[int]) -> None:
        self.final = final
        self.part = final.with_name(final.name + PART_SUFFIX)
        self.part.mkdir(parents=True, exist_ok=True)
        data = self.part / 'data.mdb'
        left = data.stat().st_size if data.exists() else 0  # by an interrupted run, perhaps of other images
        pages = sum(2 * size + 2 * PAGE for size in bytes_of_images)  # a value begins on a page of its own
        self.environment = lmdb.open(str(self.part), map_size=left + pages + MAP_SPARE, readahead=False)
        self.transaction = self.environment.begin(write=True)
        self.entries: list[Entry] = []

    def known_shape(self, key: str, data: bytes) -> tuple[int, int, int] | None:
        """The shape of an image that an interrupted run has checked and stored, None if it has not."""
        with self.environment.begin() as transaction:
            shape = transaction.get(_shape_key(key))
            if shape is None or transaction.get(key.encode('utf-8')) != data:
                return None
        return tuple(int(n) for n in shape.split(b','))

    def put(self, entry: Entry, data: bytes) -> None:
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
        self.transaction = None
        self.environment.sync(True)
        stored = self.environment.stat()['entries']
        if stored != len(self.entries):
            raise InputError(f'{self.part} holds {stored} images, wanted {len(self.entries)}; run the command again')
        lines = [f'{e.name} ({e.shape[0]},{e.shape[1]},{e.shape[2]}) 1\n' for e in self.entries]
        (self.part / META_NAME).write_text(''.join(lines), encoding='utf-8')

    def close(self) -> None:
        if self.transaction is not None:
            self.transaction.abort()
            self.transaction = None
        self.environment.close()

    def publish(self) -> None:
        os.replace(self.part, self.final)

    def discard(self) -> None:
        self.close()
        shutil.rmtree(self.part, ignore_errors=True)


def _shape_key(key: str) -> bytes:
    """Where an unfinished store notes a checked image's shape; no key of an image begins with a zero byte."""
    return b'\0' + key.encode('utf-8')
