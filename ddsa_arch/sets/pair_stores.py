"""Make the two LMDB stores of a set from image files: every image checked, on all cores, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import lmdb

from ddsa_arch.errors import InputError
from ddsa_arch.files.images import ImageFile, byte_size, decode_image, some
from ddsa_arch.files.lmdb_store import PAGE, PART_SUFFIX, Entry, StoreWriter
from ddsa_arch.files.locks import only_writer
from ddsa_arch.files.matching import SIDES, Pairs

FULL = 1 << 20  # bytes free on a disk that has none to spare
SKIP_REMEDY = 'Mend these, or leave them out with --skip-bad'


def write_pair_stores(
    pairs: Pairs,
    out: str | Path,
    progress: Callable[[Iterable], Iterable] = iter,
    skip_bad: bool = False,
    surplus: int = 0,
) -> tuple[tuple[Path, Path], list[str]]:
    """Write ``out/input.lmdb`` and ``out/target.lmdb``.

    Every image is decoded once before it is stored, and all that is wrong is reported together, with what ``pairs``
    tells. Nothing is left behind by an error in the images; after a kill or a full disk the next call goes on where it
    stopped.

    Args:
        pairs: files by key; a clean image of several rainy ones is stored once.
        out: folder of the two stores.
        progress: wraps the iterable of pairs, such as tqdm.
        skip_bad: leave out what is wrong instead of raising.
        surplus: pairs of unequal sizes to leave out anyway, as some releases have too many.

    Returns:
        The paths of the two stores, and a sentence for each thing that was left out.

    Raises:
        InputError: a store is there already; another process writes it; an image is broken; a pair has unequal sizes;
            no pair is left; no room on the disk, or the folder cannot be written.
    """
    out = Path(out)
    finals = (out / 'input.lmdb', out / 'target.lmdb')
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        with only_writer(out, 'give another --out', inside=True):
            left_out = _write(pairs, finals, progress, skip_bad, surplus)
    except (OSError, lmdb.Error) as error:
        # LMDB calls a full disk an input/output error
        full = ', the disk is full' if out.is_dir() and shutil.disk_usage(out).free < FULL else ''
        parts = ' and '.join(_part(final).name for final in finals)
        raise InputError(
            f'{out}: cannot be written ({error}{full}); mend that and run the command again, which goes on where it '
            f'stopped, or delete {parts} there, or give another --out'
        ) from error
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only if empty
    return finals, left_out


def _write(
    pairs: Pairs,
    finals: Sequence[Path],
    progress: Callable[[Iterable], Iterable],
    skip_bad: bool,
    surplus: int,
) -> list[str]:
    doomed = bool(pairs.problems) and not skip_bad  # then the images are checked for the message alone
    if not doomed:
        _reopen_half_published(finals)
    for final in finals:
        if final.exists():
            raise InputError(f'{final} is there already; delete it first, or give another --out')
    if not doomed:
        _check_room(pairs, finals[0].parent)
    equal: list[str] = []
    left_out: list[str] = []
    clean = _CleanImages(pairs)
    problems: list[str] = []
    writers: list[StoreWriter] = []
    try:
        if not doomed:
            for final, side in zip(finals, (pairs.inputs, pairs.targets), strict=True):
                writers.append(StoreWriter(final, [byte_size(file) for file in side.values()]))
        # an error must not close an environment that a loading thread reads
        with contextlib.closing(_load_ahead(pairs, writers, progress)) as loaded_pairs:
            for stem, loaded in zip(pairs.inputs, loaded_pairs, strict=True):
                clean.complete(stem, loaded)
                if loaded.unequal and len(left_out) < surplus:
                    left_out += loaded.problems
                    continue
                problems += loaded.problems
                if len(loaded.data) == 2 and loaded.data[0] == loaded.data[1]:
                    equal.append(stem)
                if doomed or (problems and not skip_bad):
                    clean.waiting.clear()  # nothing will be stored
                    continue
                if loaded.problems:
                    continue
                target = pairs.target_of(stem)
                writers[0].put(Entry(stem, _stored_name(stem, pairs.inputs[stem]), loaded.shapes[0]), loaded.data[0])
                waiting = clean.take(target)
                if waiting:
                    writers[1].put(Entry(target, _stored_name(target, pairs.targets[target]), waiting[1]), waiting[0])
        problems = pairs.problems + problems
        if problems and not skip_bad:
            raise InputError(f'{len(problems)} problems:\n  ' + '\n  '.join(problems) + f'\n{SKIP_REMEDY}')
        if not writers[0].entries:
            raise InputError(f'{finals[0].parent}: no pair can be used:\n  ' + '\n  '.join(problems))
        for writer in writers:
            writer.finish()
    except InputError:
        for writer in writers:
            writer.discard()
        raise
    finally:
        for writer in writers:
            writer.close()
    for writer in writers:
        writer.publish()
    notes = [f'left out: {text}' for text in left_out + problems]
    if equal:
        notes.append(f'kept, but input and target are one file in {len(equal)} pairs: {some(equal)}')
    return notes


def _stored_name(key: str, file: ImageFile) -> str:
    """Return the name of a file as meta_info.txt has it: its key and its suffix."""
    return f'{key}{file.suffix}'


def _part(final: Path) -> Path:
    return final.with_name(final.name + PART_SUFFIX)


def _reopen_half_published(finals: Sequence[Path]) -> None:
    """Go on after a kill between the two renames, when one store is whole and the other still a part."""
    for whole, other in (finals, finals[::-1]):
        if whole.exists() and not _part(whole).exists() and _part(other).exists() and not other.exists():
            os.replace(whole, _part(whole))


def _check_room(pairs: Pairs, folder: Path) -> None:
    """Raise before the work if the disk is too small; what an interrupted run has stored counts as room."""
    files = (*pairs.inputs.values(), *pairs.targets.values())
    needed = sum(-(-byte_size(file) // PAGE) * PAGE for file in files)
    stored = sum(path.stat().st_size for side in SIDES for path in folder.glob(f'{side}.lmdb{PART_SUFFIX}/data.mdb'))
    free = shutil.disk_usage(folder).free
    if free + stored < needed:
        raise InputError(
            f'{folder}: {free >> 20} MiB are free on its disk and {needed - stored >> 20} MiB are needed; '
            'make room, or give another --out'
        )


@dataclass
class LoadedPair:
    """The files of a pair that could be read, their shapes (H, W, C), and a sentence for each thing that is wrong."""

    data: list[bytes]
    shapes: list[tuple[int, int, int]]
    problems: list[str]
    unequal: bool = False
    target_data: bytes | None = None
    target_shape: tuple[int, int, int] | None = None

    def compare(self, stem: str, target_shape: tuple[int, int, int]) -> None:
        """Note a problem if the rainy image has not the size of its clean one."""
        if self.shapes[0] != target_shape:
            sizes = ' and '.join(f'{w} x {h}' for h, w, _ in (self.shapes[0], target_shape))
            self.problems.append(f'{stem}: input and target have unequal sizes, {sizes}; replace or remove the pair')
            self.unequal = True


def _load_ahead(
    pairs: Pairs, writers: Sequence[StoreWriter], progress: Callable[[Iterable], Iterable]
) -> Generator[LoadedPair, None, None]:
    """Read and check the pairs on all cores, in order, a bounded number ahead of the writer."""

    first = {pairs.target_of(stem): stem for stem in reversed(pairs.inputs)}

    def load(stem: str) -> LoadedPair:
        target = pairs.target_of(stem)
        files = (pairs.inputs[stem], pairs.targets[target]) if first[target] == stem else (pairs.inputs[stem],)
        return load_pair(stem, target, files, writers)

    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        waiting: list[Future[LoadedPair]] = []
        stems = list(pairs.inputs)
        upcoming = iter(stems)
        for _ in progress(stems):
            while len(waiting) < workers * 4 and (stem := next(upcoming, None)) is not None:
                waiting.append(pool.submit(load, stem))
            yield waiting.pop(0).result()


class _CleanImages:
    """The clean images on their way to the store: each is read with its first rainy image, and stored once."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self.shapes: dict[str, tuple[int, int, int] | None] = {}  # of all that were read; None for a broken one
        self.waiting: dict[str, tuple[bytes, tuple[int, int, int]]] = {}  # read, and not stored yet

    def complete(self, stem: str, loaded: LoadedPair) -> None:
        """Keep the clean image that was loaded with a rainy one, or compare the latter with the one kept."""
        target = self.pairs.target_of(stem)
        if target not in self.shapes:
            self.shapes[target] = loaded.target_shape
            if loaded.target_data is not None and loaded.target_shape:
                self.waiting[target] = loaded.target_data, loaded.target_shape
            return
        shape = self.shapes[target]
        if shape is None:
            loaded.problems.append(f'{stem}: its clean image {target!r} cannot be used')
        elif loaded.shapes:
            loaded.compare(stem, shape)

    def take(self, target: str) -> tuple[bytes, tuple[int, int, int]] | None:
        """Return a clean image that is still to be stored, once."""
        return self.waiting.pop(target, None)


def load_pair(stem: str, target: str, files: Sequence[ImageFile], writers: Sequence[StoreWriter] = ()) -> LoadedPair:
    """Read and check a rainy image and, if it is among the files, its clean one."""
    loaded = LoadedPair([], [], [])
    for place, file in enumerate(files):
        writer = writers[place] if writers else None
        try:
            data = file.read_bytes()
            known = writer.known_shape((stem, target)[place], data) if writer else None
            shape = known or decode_image(data, str(file)).shape
        except OSError as error:
            loaded.problems.append(f'{file}: cannot be read ({error.strerror or error})')
            continue
        except InputError as error:
            loaded.problems.append(str(error))
            continue
        loaded.data.append(data)
        loaded.shapes.append(shape)
        if place == 1:
            loaded.target_data, loaded.target_shape = data, shape
    if len(loaded.shapes) == 2:
        loaded.compare(stem, loaded.shapes[1])
    return loaded


def pair_is_usable(stem: str, input_file: ImageFile, target_file: ImageFile) -> bool:
    """Whether both images of a pair decode and have one size."""
    return not load_pair(stem, stem, (input_file, target_file)).problems
