"""How the threads of OpenMP wait for each other, which decides what happens to two processes on one processor.

GNU's OpenMP lets a thread spin some milliseconds before it sleeps. That is the fastest for a process that has the
processor for itself; but where two processes have as many threads as there are cores each, threads spin while those
that they wait for cannot run: a training step on two cores takes 40 times as long beside a second training. With 1000
spins, some microseconds, it takes 3 times as long, and up to 10 % more alone.

The variable is read when torch is loaded, so a command sets it before. This module imports nothing of ours.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

SPINS = '1000'
VARIABLE = 'GOMP_SPINCOUNT'
VARIABLES = (VARIABLE, 'OMP_WAIT_POLICY')  # with any of these the user has chosen
COMMAND, RUNNERS = 'ddsa', 'ddsa_arch.runners.'


def wait_considerately() -> None:
    """Set ``GOMP_SPINCOUNT`` where this process is one of the package's commands and the user has set nothing."""
    if _is_command() and not any(os.environ.get(name) for name in VARIABLES):
        os.environ[VARIABLE] = SPINS


def waiting() -> str:
    """Describe how threads wait, such as ``GOMP_SPINCOUNT=1000``, whoever has set it."""
    found = [f'{name}={os.environ[name]}' for name in VARIABLES if os.environ.get(name)]
    return ', '.join(found) or "OpenMP's own choice"


def _is_command() -> bool:
    """Whether this process runs ``ddsa`` or ``python -m ddsa_arch.runners...``, and is no program that uses us."""
    first, second = (*sys.orig_argv[1:3], '', '')[:2]
    return Path(first).stem == COMMAND or (first == '-m' and second.startswith(RUNNERS))
