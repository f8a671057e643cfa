"""The command ``ddsa``, which tells what is missing where ``ddsa_arch`` cannot be imported.

``import ddsa_arch`` imports BasicSR, torch and torchvision, so none of this is part of it. Imports stand where they are
needed, as an interrupt should find nothing to break off before ``main`` is ready for it.
"""

import os
import signal
import sys
from contextlib import contextmanager
from typing import Iterator, Optional

EXIT_INPUT = 2
EXIT_INTERRUPTED = 130


def main(argv: Optional[list] = None) -> int:
    """Run ``ddsa VERB ...``; where packages are missing, say which, and what installs them.

    Returns:
        The exit code: 2 where something is missing.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    doctor = argv[:1] == ['doctor']
    if doctor and '--repair' in argv:
        return repair()
    with ending_at_once():
        problems = find_problems()
        if not problems:
            try:
                from ddsa_arch.runners.cli import main as run
            except ImportError as error:
                problems = [str(error)]
    if not problems:
        return run(argv)
    if doctor:
        import platform

        print(f'python {platform.python_version()} on {platform.platform()} ({sys.executable})')
    for problem in problems:
        print(('{}' if doctor else 'error: {}').format(problem), file=sys.stdout if doctor else sys.stderr)
    return EXIT_INPUT


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Let an interrupt end the process while packages are imported, which takes seconds.

    An exception would come out of the middle of numpy or torch, which turn it into errors of their own.
    """

    def end(number: int, frame: object) -> None:
        os.write(2, b'interrupted\n')
        os._exit(EXIT_INTERRUPTED)

    try:
        before = signal.signal(signal.SIGINT, end)
    except ValueError:  # in another thread than the first
        before = None
    else:
        if before != signal.default_int_handler:  # somebody has other plans, such as nohup
            signal.signal(signal.SIGINT, before)
            before = None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def find_problems() -> list:
    """One sentence for each thing that keeps ``ddsa_arch`` from being imported."""
    from ddsa_start import toolbox

    if toolbox.python_problem():
        return [toolbox.python_problem()]
    return [f'{package} is not installed: {remedy}' for package, remedy in toolbox.missing().items()]


def repair() -> int:
    """Install what is missing, BasicSR last; the exit code."""
    import subprocess
    import tempfile

    from ddsa_start import toolbox

    absent = list(toolbox.missing())
    others = [package for package in absent if package != 'basicsr']
    if 'torchvision' in others and 'torch' not in others:
        others.append('torch=={}'.format(toolbox.version_of('torch')))  # keep this one
    try:
        if others:
            _step('Installing ' + ', '.join(others), [sys.executable, '-m', 'pip', 'install', *others])
        if 'basicsr' in absent:
            with tempfile.TemporaryDirectory() as folder:
                toolbox.install_basicsr(_step, sys.executable, folder)
        _step('Checking that ddsa_arch can be imported', [sys.executable, '-c', 'import ddsa_arch'])
    except subprocess.CalledProcessError as error:
        print('error: `{}` failed; its last lines say why'.format(' '.join(error.cmd)), file=sys.stderr)
        return EXIT_INPUT
    print('nothing is missing' + ('' if absent else ', and nothing was'))
    return 0


def _step(title: str, command: list, **environment: str) -> None:
    import subprocess

    print(title, flush=True)
    subprocess.check_call(command, env=dict(os.environ, **environment))
