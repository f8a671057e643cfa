"""Make LMDBs of image pairs: ``python scripts/prepare_lmdb.py lmdb ...``, which is ``ddsa data lmdb ...``."""

import sys

from ddsa_arch.runners.cli import run_main

if __name__ == '__main__':
    sys.exit(run_main('ddsa_arch.runners.data'))
