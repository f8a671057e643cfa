"""Train a network: ``python scripts/train.py -opt FILE``, or the same through torchrun; see ``ddsa train --help``."""

import sys

from ddsa_arch.runners.cli import run_main

if __name__ == '__main__':
    sys.exit(run_main('ddsa_arch.runners.train'))
