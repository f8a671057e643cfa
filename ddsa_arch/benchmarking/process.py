"""Start the process that measures one row of ``ddsa benchmark``, and end it whatever happens."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ddsa_arch.benchmarking.row import Job

KILL = getattr(signal, 'SIGKILL', signal.SIGTERM)
PACKAGE_ROOT = Path(__file__).resolve().parents[2]


def run_row(job: Job, timeout: float) -> dict[str, Any]:
    """Measure one row in a fresh process, which does not outlive this call, nor this process.

    Args:
        job: what.
        timeout: seconds.

    Returns:
        The figures by name, as many as came; ``error`` where some did not.
    """
    paths = filter(None, [str(PACKAGE_ROOT), os.environ.get('PYTHONPATH')])
    environment = os.environ | {'PYTHONPATH': os.pathsep.join(paths)}
    with contextlib.ExitStack() as stack:
        complaints = stack.enter_context(tempfile.TemporaryFile())
        if job.compiled:  # the time to compile is that of a first time
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix='ddsa_benchmark_'))
            environment['TORCHINDUCTOR_CACHE_DIR'] = folder
        process = subprocess.Popen(
            [sys.executable, '-m', 'ddsa_arch.benchmarking.row'],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints,
            env=environment,
            start_new_session=True,  # so that what the compiler starts can be ended with it
        )  # fmt: skip
        # communicate() would close it, and the child takes that for the end of this process
        lifeline, process.stdin = process.stdin, None
        assert lifeline is not None  # as it is a pipe
        overdue = False
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended already; its exit code tells
                lifeline.write(json.dumps(dataclasses.asdict(job)).encode() + b'\n')
                lifeline.flush()
            try:
                output, _ = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                overdue = True
                _end(process)
                output, _ = process.communicate()
        finally:
            _end(process)
            process.wait()
            with contextlib.suppress(BrokenPipeError):
                lifeline.close()
        complaints.seek(0)
        printed = complaints.read().decode('utf-8', 'replace')
    figures: dict[str, Any] = {}
    for line in output.splitlines(keepends=True):
        if line.endswith(b'\n'):  # what a kill has cut off is no figure
            figures |= json.loads(line)
    if overdue:
        figures['error'] = f'time limit of {timeout:g} s'
    elif process.returncode:
        figures.setdefault('error', exit_text(process.returncode))
    if 'error' in figures and not overdue:
        figures['complaints'] = printed
    return figures


def _end(process: subprocess.Popen) -> None:
    """End a process and those it started."""
    if hasattr(os, 'killpg'):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, KILL)
    elif process.poll() is None:
        process.kill()


def exit_text(code: int) -> str:
    """Tell why a process ended that did not say so itself."""
    if code == -KILL:
        return 'killed (SIGKILL), most likely for want of memory'
    return f'ended by {signal.Signals(-code).name}' if code < 0 else f'ended with exit code {code}'
