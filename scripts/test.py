"""Score a network on image sets: ``python scripts/test.py -opt FILE``; see ``ddsa test --help``."""

import sys

import _environment

_environment.wait_considerately()  # before torch is loaded

from ddsa_arch.runners.cli import run_main  # noqa: E402

if __name__ == '__main__':
    sys.exit(run_main('ddsa_arch.runners.test'))
