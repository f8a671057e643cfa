"""The command ``ddsa``, which tells what is missing where ``ddsa_arch`` cannot be imported.

``import ddsa_arch`` imports BasicSR, torch and torchvision, so none of this is part of it.
"""

import os
import platform
import subprocess
import sys
import tempfile
from typing import Optional

from ddsa_start import toolbox

EXIT_INPUT = 2
EXIT_INTERRUPTED = 130


def main(argv: Optional[list] = None) -> int:
    """Run ``ddsa VERB ...``; where packages are missing, say which, and what installs them.

    Returns:
        The exit code: 2 where something is missing.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(argv)
    except KeyboardInterrupt:  # while the packages are imported, which takes seconds
        print('interrupted', file=sys.stderr)
        return EXIT_INTERRUPTED


def _run(argv: list) -> int:
    doctor = argv[:1] == ['doctor']
    if doctor and '--repair' in argv:
        return repair()
    problems = find_problems()
    if not problems:
        try:
            from ddsa_arch.runners.cli import main as run
        except ImportError as error:
            problems = [str(error)]
        else:
            return run(argv)
    if doctor:
        print(f'python {platform.python_version()} on {platform.platform()} ({sys.executable})')
    for problem in problems:
        print(('{}' if doctor else 'error: {}').format(problem), file=sys.stdout if doctor else sys.stderr)
    return EXIT_INPUT


def find_problems() -> list:
    """One sentence for each thing that keeps ``ddsa_arch`` from being imported."""
    if toolbox.python_problem():
        return [toolbox.python_problem()]
    return [f'{package} is not installed: {remedy}' for package, remedy in toolbox.missing().items()]


def repair() -> int:
    """Install what is missing, BasicSR last; the exit code."""
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
    print(title, flush=True)
    subprocess.check_call(command, env=dict(os.environ, **environment))
