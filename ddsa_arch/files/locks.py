"""One process at a time in a folder that results are written to."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ddsa_arch.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SUFFIX = '.lock'
_held: set[Path] = set()  # by this process, to which a lock of the system would be granted again


@contextlib.contextmanager
def only_writer(folder: str | Path, remedy: str, inside: bool = False) -> Iterator[None]:
    """Keep other processes from writing into a folder during the block.

    The lock is a file that tells who holds it. It belongs to the process, on every machine that sees the disk: when
    the process ends in whatever way, the lock is free, and the file that a killed one leaves is taken over. A disk
    that knows no locks has none.

    Args:
        folder: need not be there, and may be renamed meanwhile.
        remedy: what to do instead of waiting, such as "give another --out".
        inside: let the lock lie in the folder, which is then made, instead of beside it under a name with a dot.

    Raises:
        InputError: another process holds the lock; the message tells its number, machine, age and command.
    """
    folder = Path(os.path.abspath(folder))
    path = folder / f'.ddsa{SUFFIX}' if inside else folder.with_name(f'.{folder.name}{SUFFIX}')
    missing = [parent for parent in path.parents if not parent.exists()]
    if path in _held:
        raise InputError(f'{folder} is in use by this process; {remedy}')
    file = None
    with contextlib.suppress(OSError):  # of a disk that cannot be written, which the work tells better, or has no locks
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(path, folder, remedy)
    _held.add(path)
    try:
        yield
    finally:
        _held.discard(path)
        if file is not None:
            path.unlink(missing_ok=True)
            os.close(file)
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()  # only if empty


def _locked(path: Path, folder: Path, remedy: str) -> int:
    """An open file with the lock on it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(file)
            if path.exists() and os.path.samestat(status, path.stat()):  # not removed since by its holder
                break
        except BlockingIOError:
            holder = os.read(file, 4096).decode('utf-8', 'replace')
            os.close(file)
            raise InputError(f'{folder} is in use by {_told(holder)}; wait for it, or {remedy}') from None
        except BaseException:
            os.close(file)
            raise
        os.close(file)
    os.ftruncate(file, 0)
    command = ' '.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    about = {'process': os.getpid(), 'machine': platform.node(), 'since': time.time(), 'command': command}
    with contextlib.suppress(OSError):  # of a full disk: the lock holds without the name of its holder
        os.write(file, json.dumps(about).encode()[:4096])
    return file


def _told(holder: str) -> str:
    try:
        told = json.loads(holder)
        age = (time.time() - told['since']) / 60
        since = f'{age:.0f} minutes' if age < 120 else f'{age / 60:.0f} hours'
        return f'process {told["process"]} on {told["machine"]} since {since} (`{told["command"]}`)'
    except (ValueError, KeyError, TypeError):
        return 'another process'
