"""``ddsa data download``: fetch the two archives of Rain13K from Google Drive, and check them.

Sizes and hashes of Google's files are not known to us, so nothing tells that a file is the one the field used. What
is checked: the archive's list of entries can be read and none of them leads out of its folder, each set has as many
images as it should, and every entry matches the CRC that the archive itself carries for it.
"""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from ddsa_arch.errors import InputError, did_you_mean
from ddsa_arch.files.archives import broken_entries, open_archive
from ddsa_arch.files.images import IMAGE_SUFFIXES, some
from ddsa_arch.files.matching import SIDES
from ddsa_arch.sets.benchmarks import TEST_SETS, TRAIN_SET, Benchmark


@dataclass(frozen=True)
class Archive:
    """An archive of the field: the id of its file on Google Drive, and the sets in it."""

    file_id: str
    sets: tuple[Benchmark, ...]


ARCHIVES = {
    'train': Archive('14BidJeG4nSNuFNFDf99K-7eErCq4i47t', (TRAIN_SET,)),
    'test': Archive('1P_-RAvltEoEhfT-9GrWRdpEi6NSswTs8', TEST_SETS),
}
LINK = 'https://drive.google.com/uc?id={}'  # of the file
PAGE = 'https://drive.google.com/file/d/{}/view'  # for a browser
OLDEST_GDOWN = '6.4'  # the first that has a timeout and refuses an error page
TIMEOUT = 60  # seconds without a byte
UNCHECKED = '.unchecked'  # added to the name until the file is whole and checked; gdown adds XXXXXXXX.part to that
BROKEN = '.broken'  # added to the name of a file that failed a check
GDOWN_ADVICE = (' You may still be able to access', ' The received bytes are kept')  # ours follows instead
INSTALL = 'pip install --upgrade gdown'


def download(which: Sequence[str], out: str | Path, progress: bool = False) -> dict[Path, str]:
    """Fetch archives that are not there yet as ``out/train.zip`` and ``out/test.zip``, and check them all.

    A download that breaks off is resumed by the next call. A file takes its name when it has passed the checks; one
    that fails them is kept as ``NAME.zip.broken``.

    Args:
        which: ``train``, ``test`` or both; empty for both.
        out: made if it is missing.
        progress: show bars.

    Returns:
        What was done, ``downloaded`` or ``there already``, by file.

    Raises:
        InputError: an unknown archive; one that could not be had, with the reason, and how to get it by hand.
    """
    for name in which:
        if name not in ARCHIVES:
            raise InputError(f'no archive {name!r}{did_you_mean(name, ARCHIVES)}')
    out = Path(out)
    done: dict[Path, str] = {}
    failed: dict[str, list[str]] = {}
    for name in dict.fromkeys(which or ARCHIVES):
        path = out / f'{name}.zip'
        try:
            done[path] = _provide(ARCHIVES[name], path, progress)
        except (InputError, OSError) as error:
            failed.setdefault(_one_line(error), []).append(path.name)
    if failed:
        reasons = [f'  {", ".join(names)}: {reason}' for reason, names in failed.items()]
        raise InputError('\n'.join(['not all archives could be had', *reasons, by_hand(out)]))
    return done


def by_hand(out: Path) -> str:
    """Tell how to get the archives with a browser."""
    links = [f'  {PAGE.format(archive.file_id)} -> {out / name}.zip' for name, archive in ARCHIVES.items()]
    return '\n'.join(
        ['By hand: download these in a browser, and put them there:', *links, f'then run: {next_command(out)}']
    )


def next_command(out: Path) -> str:
    return f'ddsa data prepare --root {out} --out datasets'


def _provide(archive: Archive, path: Path, progress: bool) -> str:
    """Make sure that ``path`` is a sound archive, and return what was done."""
    earlier = ''
    if path.exists():
        problem = _set_aside_if_unsound(archive, path, path, progress)
        if not problem:
            return 'there already'
        earlier = f'; the file that was there: {problem}'
    try:
        fetched = _fetch(archive, path.with_name(path.name + UNCHECKED), progress)
    except InputError as error:
        raise InputError(f'{error}{earlier}') from error
    problem = _set_aside_if_unsound(archive, fetched, path, progress)
    if problem:
        raise InputError(f'{problem}{earlier}')
    os.replace(fetched, path)
    return f'downloaded{earlier}'


def _set_aside_if_unsound(archive: Archive, path: Path, final: Path, progress: bool) -> str:
    """Check a file; if it fails, rename it to ``FINAL.broken`` and return what is wrong, else ''."""
    try:
        _check(archive, path, progress)
    except InputError as error:
        aside = f'{final}{BROKEN}'
        os.replace(path, aside)
        return f'{str(error).removeprefix(f"{path}: ")} (kept as {aside})'
    return ''


def _fetch(archive: Archive, path: Path, progress: bool) -> Path:
    """Download to ``path``, from where an earlier call stopped, unless nothing was missing but the checks."""
    if path.exists():
        return path
    for part in _parts(path):
        if _is_whole(part):  # a server answers a request for the rest of it with an error
            os.replace(part, path)
            return path
    fetch = _gdown()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        fetch(LINK.format(archive.file_id), str(path), quiet=not progress, resume=True, timeout=TIMEOUT)
    except Exception as error:  # gdown reads Google's pages, whose forms change: whatever goes wrong, there is a way
        parts = [f'{part.stat().st_size} bytes of it in {part}' for part in _parts(path)]
        kept = f'; run this again to go on from {", ".join(parts)}, or delete that to begin anew' if parts else ''
        raise InputError(f'{type(error).__name__}: {_one_line(error)}{kept}') from error
    return path


def _gdown() -> Callable[..., str]:
    """Return the function that downloads from Google Drive."""
    try:
        import gdown
    except ImportError as error:
        raise InputError(f'gdown, which downloads from Google Drive, is not installed: {INSTALL}') from error
    if 'timeout' not in inspect.signature(gdown.download).parameters:
        raise InputError(f'gdown {gdown.__version__} is too old, wanted {OLDEST_GDOWN} or newer: {INSTALL}')
    return gdown.download


def _parts(path: Path) -> list[Path]:
    """Return the files that unfinished downloads left."""
    return sorted(part for part in path.parent.glob(f'{path.name}*.part') if part.stat().st_size)


def _is_whole(part: Path) -> bool:
    try:
        open_archive(part).close()
    except InputError:
        return False
    return True


def _check(archive: Archive, path: Path, progress: bool) -> None:
    bar: Callable[[Iterable], Iterable] = partial(
        tqdm, unit='file', desc=f'checking {path.name}', disable=None if progress else True
    )
    with open_archive(path) as opened:
        problems = count_problems(opened.namelist(), archive.sets)
        broken = [] if problems else broken_entries(opened, bar)
        if broken:
            problems = [f'{len(broken)} of {len(opened.namelist())} entries are damaged: {some(broken)}']
    if problems:
        raise InputError(f'{path}: {"; ".join(problems)}')


def count_problems(names: Iterable[str], sets: Iterable[Benchmark]) -> list[str]:
    """Tell what is wrong with the number of images in ``input`` and ``target`` of each set, a sentence for each.

    Args:
        names: of the entries of an archive.
        sets: what should be in it.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for name in names:
        path = PurePosixPath(name.replace('\\', '/'))
        if len(path.parts) > 2 and not path.name.startswith('.') and path.suffix.lower() in IMAGE_SUFFIXES:
            counts[path.parts[-3].lower(), path.parts[-2].lower()] += 1
    problems = []
    for benchmark in sets:
        most = benchmark.pairs + benchmark.surplus + len(benchmark.strays)
        for side in SIDES:
            found = sum(counts[folder, side] for folder in benchmark.folders)
            if not benchmark.pairs <= found <= most:
                wanted = f'{benchmark.pairs} to {most}' if most > benchmark.pairs else f'{most}'
                problems.append(f'{benchmark.name} has {found} {side} images, expected {wanted}')
    return problems


def _one_line(error: BaseException) -> str:
    text = ' '.join(str(error).split())
    for advice in GDOWN_ADVICE:
        text = text.partition(advice)[0]
    return text
