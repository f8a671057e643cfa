"""``ddsa test``: score a network on image sets through BasicSR's pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ddsa_arch.runners import pipeline
from ddsa_arch.runners.process import is_first_process


def test(option_file: str | Path, **flags: object) -> Path:
    """Test as an option file says, in the current directory; see ``pipeline.run`` for the flags.

    Returns:
        The folder of the results: ``summary.csv``, a CSV for each set, ``results.json``, the images, the log.
    """
    return pipeline.run(option_file, False, **flags)


def main(argv: Sequence[str] | None = None) -> int:
    args = pipeline.pipeline_parser('ddsa test', __doc__).parse_args(argv)
    folder = test(args.opt, launcher=args.launcher, debug=args.debug, force_yml=args.force_yml, root=args.root)
    if is_first_process():
        print(f'scores: {folder / "summary.csv"}\nimages: {folder / "visualization"}')
    return 0
