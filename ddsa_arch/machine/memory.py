"""The memory of this process as the operating system counts it: now, and the peak since a start."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import re
from pathlib import Path

STATUS = Path('/proc/self/status')
CLEAR_REFS = Path('/proc/self/clear_refs')
RESET_PEAK = '5'  # what Linux wants written to CLEAR_REFS
KIB = 1024


class PeakMemory:
    """Measures how far the memory of this process rises above a start.

    Attributes:
        source: ``VmHWM``: Linux's peak resident size, which ``reset`` sets back; ``ru_maxrss``: the peak of the whole
            life of the process, so that a rise below an earlier peak is not seen; '' where nothing is known.
    """

    def __init__(self) -> None:
        self.source = 'VmHWM' if _status('VmRSS') and self.reset() else 'ru_maxrss' if _lifetime_peak() else ''

    def reset(self) -> bool:
        """Forget the peak so far; return whether the system allows that."""
        before = _status('VmHWM')
        with contextlib.suppress(OSError):
            CLEAR_REFS.write_text(RESET_PEAK)
            return before is not None
        return False

    def now(self) -> int | None:
        """Return the bytes in use, to subtract from a later ``peak``; None where nothing is known."""
        return _status('VmRSS') if self.source == 'VmHWM' else _lifetime_peak()

    def peak(self) -> int | None:
        """Return the most bytes that were in use since ``reset``."""
        return _status('VmHWM') if self.source == 'VmHWM' else _lifetime_peak()


def give_back_freed_memory() -> bool:
    """Let the C library hand freed memory to the system, which else counts as in use; True where that is possible."""
    if platform.libc_ver()[0] != 'glibc':
        return False
    ctypes.CDLL(None).malloc_trim(0)
    return True


def _status(field: str) -> int | None:
    """Return a number of bytes from Linux's account of this process."""
    try:
        found = re.search(rf'^{field}:\s*(\d+) kB$', STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * KIB if found else None


def _lifetime_peak() -> int | None:
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == 'Darwin' else peak * KIB
