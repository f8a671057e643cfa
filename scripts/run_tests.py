"""Run the tests from a bare Python: makes .venv in this checkout, then runs pytest (and ruff and mypy) in it."""

import os
import sys

import _environment

USAGE = """\
usage: python3 scripts/run_tests.py [--lint] [--slow] [PATH ...] [PYTEST ARGUMENT ...]

Needs only Python 3.10 or newer. The first run makes the folder .venv in this checkout and installs there what
scripts/requirements.txt names (some minutes, up to 3 GB to download); later runs start at once.

  --lint       run `ruff check .`, `ruff format --check .` and `mypy` first
  --slow       include the tests marked slow
  -h, --help   this text; installs nothing

All other arguments go to pytest, for example `-x`, `--lf` (only what failed last time), `-k padding` or
`tests/archs`; without a path it runs tests/. OMP_NUM_THREADS is 2 unless set.
"""
SCRIPT = 'python3 scripts/run_tests.py'


def pytest_arguments(argv: list) -> list:
    """What pytest is called with: our defaults, then the user's words, which win."""
    words = [word for word in argv if word not in ('--lint', '--slow')]
    paths = [_environment.ROOT / word.split('::')[0] for word in words if not word.startswith('-')]
    named = any(path.exists() for path in paths)
    return ([] if '--slow' in argv else ['-m', 'not slow']) + words + ([] if named else ['tests'])


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
    environment = dict(os.environ)
    environment.setdefault('OMP_NUM_THREADS', '2')
    lint = types = tests = 0
    if '--lint' in argv:
        for words in (['check'], ['format', '--check']):
            lint = lint or _environment.hand_over([python, '-m', 'ruff', *words, '.'], environment)
        if lint != 130:
            types = _environment.hand_over([python, '-m', 'mypy'], environment)
    if 130 not in (lint, types):
        tests = _environment.hand_over([python, '-m', 'pytest', *pytest_arguments(argv)], environment)
    if 130 in (lint, types, tests):  # the user has stopped it
        return 130
    if lint or types or tests:
        print(verdict(lint, types, tests), file=sys.stderr)
    return tests or lint or types


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
