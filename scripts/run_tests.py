"""Run the tests from a bare Python: makes .venv in this checkout, then runs pytest (and ruff and mypy) in it."""

import os
import subprocess
import sys
from pathlib import Path

import _environment

USAGE = """\
usage: python3 scripts/run_tests.py [--quick] [--lint] [--slow] [PATH ...] [PYTEST ARGUMENT ...]

Needs only Python 3.10 or newer. The first run makes the folder .venv in this checkout and installs there what
scripts/requirements.txt names (some minutes, up to 3 GB to download); later runs start at once.

  --quick      run only the tests of the files that differ from the upstream branch, or from the last commit where
               there is none: of ddsa_arch/ROOM/x.py those of tests/ROOM/test_x.py, or of all tests/ROOM if there is
               no such file. If nothing differs, or this is no git checkout, run the tests marked core, in a minute
  --lint       run `ruff check .`, `ruff format --check .` and `mypy` first
  --slow       include the tests marked slow
  -h, --help   this text; installs nothing

All other arguments go to pytest, for example `-x`, `--lf` (only what failed last time), `-k padding` or
`tests/archs`. Without a path all of tests/ runs, in two processes; with a path, `-x` or `--pdb` in one, and `-n 4`
asks for four. OMP_NUM_THREADS is 1 for each of several processes and else 2, unless set.
"""
SCRIPT = 'python3 scripts/run_tests.py'
OWN_WORDS = ('--quick', '--lint', '--slow')
ONE_PROCESS = ('-x', '--exitfirst', '--pdb', '--trace', '-s', '--lf', '--last-failed', '--sw', '--stepwise', '--co')
PACKAGE, TESTS = 'ddsa_arch', 'tests'
FLOORS = 'tests/test_floors.py'
ROOMS_OF = {  # what is neither of the package nor a test: the tests that look at it
    'options': 'tests/options',
    'scripts': 'tests/scripts',
    'setup.py': 'tests/scripts',
    'README.md': 'tests/test_readme.py',
}


def pytest_arguments(argv: list, quick: list = ()) -> list:
    """What pytest is called with: our defaults, then the user's words, which win.

    Args:
        argv: the words of the command line.
        quick: the tests that --quick has chosen; none for all, or for those marked core.
    """
    words = [word for word in argv if word not in OWN_WORDS]
    paths = [_environment.ROOT / word.split('::')[0] for word in words if not word.startswith('-')]
    named = any(path.exists() for path in paths)
    marks = ['core'] if '--quick' in argv and not quick and not named else []
    marks += [] if '--slow' in argv else ['not slow']
    whole = not named and '--quick' not in argv
    one = not whole or any(word.startswith(('-n', '--numprocesses')) or word in ONE_PROCESS for word in words)
    processes = [] if one else ['-n', '2', '--dist', 'worksteal']
    return [
        *processes,
        *(['-m', ' and '.join(marks)] if marks else []),
        *words,
        *([] if named else quick or [TESTS]),
    ]


def changed_files(root: Path = _environment.ROOT) -> list:
    """The files that differ from the upstream branch, or from the last commit; none where git cannot tell."""

    def git(*words: str) -> list:
        command = ['git', '-c', 'core.quotePath=false', *words]
        return subprocess.run(command, cwd=str(root), capture_output=True, text=True, check=True).stdout.splitlines()

    try:
        try:
            (base,) = git('merge-base', 'HEAD', '@{upstream}')
        except subprocess.CalledProcessError:
            base = 'HEAD'
        changed = git('diff', '--name-only', '--relative', base)
        return sorted({*changed, *git('ls-files', '--others', '--exclude-standard')})
    except (OSError, subprocess.CalledProcessError):
        return []


def chosen_tests(changed: list, root: Path = _environment.ROOT) -> list:
    """The test files and folders that look at some files, as paths in the checkout."""
    found = set()
    for name in changed:
        path = Path(name)
        if path.parts[0] == PACKAGE:
            found |= {FLOORS, _test_of_module(path, root)}
        elif path.parts[0] == TESTS and path.name.startswith('test_'):
            found.add(name)
        elif path.parts[0] == TESTS:  # what tests share: those of the room, and for all rooms the core
            found.add('/'.join(path.parts[:-1][:2]))
        else:
            found.add(ROOMS_OF.get(path.parts[0], ''))
    found = {place for place in found - {'', TESTS} if (root / place).exists()}
    return sorted(place for place in found if not any(above.as_posix() in found for above in Path(place).parents))


def _test_of_module(path: Path, root: Path) -> str:
    """The test of a module, or else the tests of the folder that it lies in, such as tests/ROOM; '' for the package."""
    *folders, _ = path.parts[1:]
    for depth in range(len(folders), -1, -1):
        folder = Path(TESTS, *folders[:depth])
        own = folder / f'test_{path.stem}.py'
        if (root / own).exists():
            return own.as_posix()
        if depth and (root / folder).is_dir():
            return folder.as_posix()
    return ''


def verdict(lint: int, types: int, tests: int) -> str:
    """One line on what failed and what to do about it; empty if nothing did."""
    lines = []
    if lint:
        lines.append(
            'ruff found faults (listed above; in .venv/bin, `ruff check --fix .` and `ruff format .` mend most)'
        )
    if types:
        lines.append('mypy found faults (listed above; `.venv/bin/mypy` runs it alone)')
    if tests == 5:
        lines.append('no test was selected (check the path, -k or -m)')
    elif tests == 1:
        lines.append(f'tests failed (listed above; `{SCRIPT} --lf -x` runs the first of them again)')
    elif tests:
        lines.append(f'pytest stopped with exit status {tests} (its last lines say why)')
    return 'Not passed: ' + '; '.join(lines) if lines else ''


def main(argv: list) -> int:
    """Run ruff, mypy and pytest in the environment; pytest's exit status, or that of the others where it passed."""
    if '-h' in argv or '--help' in argv:
        print(USAGE, end='')
        return 0
    python = _environment.ensure_environment()
    arguments = pytest_arguments(argv, chosen_tests(changed_files()) if '--quick' in argv else [])
    environment = dict(os.environ)
    several = any(word.startswith(('-n', '--numprocesses')) for word in arguments)
    environment.setdefault('OMP_NUM_THREADS', '1' if several else '2')
    lint = types = tests = 0
    if '--lint' in argv:
        for words in (['check'], ['format', '--check']):
            lint = lint or _environment.hand_over([python, '-m', 'ruff', *words, '.'], environment)
        if lint != 130:
            types = _environment.hand_over([python, '-m', 'mypy'], environment)
    if 130 not in (lint, types):
        tests = _environment.hand_over([python, '-m', 'pytest', *arguments], environment)
    if 130 in (lint, types, tests):  # the user has stopped it
        return 130
    if lint or types or tests:
        print(verdict(lint, types, tests), file=sys.stderr)
    return tests or lint or types


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
