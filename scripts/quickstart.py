"""From a bare Python to a first derained picture: makes .venv in this checkout, then runs the quickstart."""

import sys

import _environment

USAGE = """\
usage: python3 scripts/quickstart.py [--minutes FLOAT] [--out DIR] [--rain light|heavy] [--seed INT]
                                     [--device auto|cpu|cuda]

Needs only Python 3.10 or newer. The first run makes the folder .venv in this checkout and installs there what
scripts/requirements.txt names (some minutes, up to 3 GB to download); later runs start at once. Then it
trains a small network to remove rain and shows what it learned.

  --minutes FLOAT   about how long to train (default: 6)
  --out DIR         where everything lands (default: quickstart)
  --rain KIND       how much rain: light or heavy (default: heavy)
  --seed INT        of rain and training (default: 0)
  --device DEVICE   auto, cpu or cuda (default: auto)
  -h, --help        this text; installs nothing

Relative paths are counted from the checkout. All arguments go to `python -m ddsa_arch.runners.quickstart`.
DDSA_TORCH='torch==...' takes another torch: see the top of scripts/requirements.txt.
"""


def main(argv: list) -> int:
    """Hand over to the quickstart in the environment; its exit status."""
    if '-h' in argv or '--help' in argv:
        print(USAGE, end='')
        return 0
    python = _environment.ensure_environment()
    return _environment.hand_over([python, '-m', 'ddsa_arch.runners.quickstart', *argv])


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
