"""The files of validation and tests: one CSV per set, one summary, one JSON with everything."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddsa_arch.files.atomic import write_json
from ddsa_arch.files.tables import finite_mean, write_csv

AVERAGE = 'Average'  # mean of the set means, as the field's tables have it
COLUMNS = ('image', 'seconds', 'note')  # of a row, beside the metrics


class ResultFiles:
    """Keeps the results of the image sets of one run, and rewrites its files after each set.

    ``<folder>/<set>.csv``: a row per image. ``summary.csv``: a row per set and iteration, and the average of the set
    means where there are several sets. ``results.json``: the same with the per-image rows and the seconds they took,
    and the protocol, for programs. The CSV files hold no times, so that equal runs write equal files.

    Args:
        folder: made when the first results come. Results that lie there are kept and added to.
        protocol: how the results come about, see ``models.protocol``.
    """

    def __init__(self, folder: str | Path, protocol: Mapping[str, Any] | None = None) -> None:
        self.folder = Path(folder)
        self.protocol = dict(protocol or {})
        self.sets: dict[str, dict[str, Any]] = {}
        if (self.folder / 'results.json').is_file():
            self.sets = json.loads((self.folder / 'results.json').read_text(encoding='utf-8'))['sets']

    def add(
        self,
        name: str,
        iteration: int | None,
        metrics: Sequence[str],
        rows: Sequence[Mapping[str, Any]],
        write: bool = True,
    ) -> dict[str, float]:
        """Take the rows of one set, each with ``image``, the metrics, ``note`` and ``seconds``; return the means.

        ``write`` is False in all processes but the first, which keep the record alone.
        """
        means = {metric: finite_mean(row[metric] for row in rows) for metric in metrics}
        entry = {
            'set': name,
            'iteration': iteration,
            'images': len(rows),
            **means,
            **{f'{m}_counted': sum(math.isfinite(row[m]) for row in rows) for m in metrics},
            'seconds_per_image': finite_mean(row['seconds'] for row in rows),
        }
        record = self.sets.setdefault(name, {'history': [], 'images': []})
        earlier = [e for e in record['history'] if iteration is not None and e['iteration'] < iteration]
        record['history'] = [*earlier, entry]
        record['images'] = list(rows)
        if write:
            self._write(name, metrics, rows)
        return means

    def average(self, metrics: Sequence[str]) -> dict[str, float]:
        """Return the mean of the newest set means, for each metric, over the sets that have it."""
        newest = [record['history'][-1] for record in self.sets.values()]
        return {m: finite_mean(e.get(m, math.nan) for e in newest) for m in metrics}

    def _write(self, name: str, metrics: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        write_csv(self.folder / f'{name}.csv', rows, ['image', *metrics, 'note'])
        summary = [entry for record in self.sets.values() for entry in record['history']]
        summary.sort(key=lambda e: e['iteration'] or 0)
        metrics = list(dict.fromkeys(m for entry in summary for m in entry if f'{m}_counted' in entry))
        if len(self.sets) > 1:
            missing = self.protocol.get('missing_sets')
            note = f'without {", ".join(missing)}' if missing else ''
            summary.append({'set': AVERAGE, **self.average(metrics), 'note': note})
        counted = [f'{m}_counted' for m in metrics]
        columns = ['set', 'iteration', 'images', *metrics, *counted, 'note']
        write_csv(self.folder / 'summary.csv', summary, columns)
        write_json(self.folder / 'results.json', {'protocol': self.protocol, 'sets': self.sets})
