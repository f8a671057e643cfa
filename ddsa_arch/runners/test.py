"""``ddsa test``: score a network on image sets through BasicSR's pipeline."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ddsa_arch.comparison.scores import SCORES
from ddsa_arch.files.images import some
from ddsa_arch.files.tables import markdown_table, plain_cell
from ddsa_arch.machine.process import is_first_process
from ddsa_arch.models.protocol import describe_protocol
from ddsa_arch.models.validated_model import NOT_FINITE
from ddsa_arch.training import pipeline

EXIT_FAILED = 1

if TYPE_CHECKING:
    from typing_extensions import Unpack  # Python 3.11 has it in typing


def test(option_file: str | Path, **flags: Unpack[pipeline.Flags]) -> Path:
    """Test as an option file says, in the current directory; see ``pipeline.run`` for the flags.

    Returns:
        The folder of the results: ``summary.csv``, a CSV for each set, ``results.json``, the images, the log.
    """
    return pipeline.run(option_file, False, **flags)


def main(argv: Sequence[str] | None = None) -> int:
    parser = pipeline.pipeline_parser('ddsa test', __doc__)
    parser.add_argument(
        '--allow-missing', '--allow_missing', action='store_true', help='test without the sets that are not on the disk'
    )
    args = parser.parse_args(argv)
    folder = test(
        args.opt,
        launcher=args.launcher,
        debug=args.debug,
        force_yml=args.force_yml,
        root=args.root,
        allow_missing=args.allow_missing,
    )
    if is_first_process():
        print(results_table(folder))
        print(f'scores: {folder / "summary.csv"}\nimages: {folder / "visualization"}')
        broken = images_not_finite(folder)
        if broken:
            print(f'error: the output of the network is not finite for {some(broken)}', file=sys.stderr)
            return EXIT_FAILED
    return 0


def images_not_finite(folder: str | Path) -> list[str]:
    """Names of the images of a test for which the network gave numbers that are not finite."""
    sets = json.loads((Path(folder) / 'results.json').read_text(encoding='utf-8'))['sets']
    return [row['image'] for record in sets.values() for row in record['images'] if row['note'] == NOT_FINITE]


def results_table(folder: str | Path) -> str:
    """Return the scores of a test for a terminal: a row for each set, their average, and the protocol."""
    with (Path(folder) / 'summary.csv').open(encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    protocol = json.loads((Path(folder) / 'results.json').read_text(encoding='utf-8'))['protocol']
    metrics = [name.removesuffix('_counted') for name in rows[0] if name.endswith('_counted')]
    shown = [[plain_cell(row['set']), row['images'], *(_shown(name, row[name]) for name in metrics)] for row in rows]
    lines = [markdown_table(shown, ['set', 'images', *(SCORES[m].label if m in SCORES else m for m in metrics)])]
    if protocol['missing_sets']:
        lines.append(f'without {", ".join(protocol["missing_sets"])}: not on the disk')
    lines.append(f'protocol: {describe_protocol(protocol, metrics)}')
    return '\n'.join(lines)


def _shown(name: str, value: str) -> str:
    if value in ('', 'nan'):
        return '-'
    return SCORES[name].show(float(value)) if name in SCORES else f'{float(value):.4f}'
