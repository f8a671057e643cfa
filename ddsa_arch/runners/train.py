"""``ddsa train``: train a network through BasicSR's pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ddsa_arch.machine.process import is_first_process
from ddsa_arch.runners.summary import FOLDER, SCORES, summarise
from ddsa_arch.training import pipeline
from ddsa_arch.training.dry_run import dry_run

if TYPE_CHECKING:
    from typing_extensions import Unpack  # Python 3.11 has it in typing


def train(option_file: str | Path, **flags: Unpack[pipeline.Flags]) -> Path:
    """Train as an option file says, in the current directory; see ``pipeline.run`` for the flags.

    Returns:
        The folder of the experiment: ``models/``, ``training_states/``, ``validation/``, ``summary/``, the log,
        ``training.csv`` and the options.
    """
    folder = pipeline.run(option_file, True, **flags)
    if is_first_process():
        summarise(folder)
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    parser = pipeline.pipeline_parser('ddsa train', __doc__)
    parser.add_argument(
        '--dry-run',
        '--dry_run',
        action='store_true',
        help='check everything, try a few steps, estimate time, memory and disk',
    )
    args = parser.parse_args(argv)
    if args.dry_run:
        estimate = dry_run(args.opt, launcher=args.launcher, debug=args.debug, force_yml=args.force_yml)
        if is_first_process():
            print(estimate.text())
        return 0
    folder = train(
        args.opt,
        launcher=args.launcher,
        auto_resume=args.auto_resume,
        debug=args.debug,
        force_yml=args.force_yml,
        root=args.root,
    )
    if is_first_process():
        print(f'weights: {folder / "models"}\nscores: {folder / SCORES}\nsummary: {folder / FOLDER}')
    return 0
