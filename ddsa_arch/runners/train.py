"""``ddsa train``: train a network through BasicSR's pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ddsa_arch.runners import pipeline
from ddsa_arch.runners.process import is_first_process


def train(option_file: str | Path, **flags: object) -> Path:
    """Train as an option file says, in the current directory; see ``pipeline.run`` for the flags.

    Returns:
        The folder of the experiment: ``models/``, ``training_states/``, ``validation/``, the log and the options.
    """
    return pipeline.run(option_file, True, **flags)


def main(argv: Sequence[str] | None = None) -> int:
    args = pipeline.pipeline_parser('ddsa train', __doc__).parse_args(argv)
    folder = train(
        args.opt, launcher=args.launcher, auto_resume=args.auto_resume, debug=args.debug, force_yml=args.force_yml
    )
    if is_first_process():
        print(f'weights: {folder / "models"}\nscores: {folder / "validation" / "summary.csv"}')
    return 0
