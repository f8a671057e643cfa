"""Score a network on image sets: ``python scripts/test.py -opt FILE``; see ``ddsa test --help``."""

import sys

from ddsa_arch.runners.cli import run_main

if __name__ == '__main__':
    sys.exit(run_main('ddsa_arch.runners.test'))
