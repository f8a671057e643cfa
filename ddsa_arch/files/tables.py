"""Results as files that a person opens: CSV, and Markdown for a terminal."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ddsa_arch.files.atomic import write_text

FORMULA = ('=', '+', '-', '@', '\t', '\r')
QUOTE = "'"  # which spreadsheets take for the mark of a text


def write_csv(path: str | Path, rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> None:
    """Write rows as CSV with a header, whole or not at all. Missing cells stay empty; see ``safe_cell``."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction='ignore', lineterminator='\n')
    writer.writeheader()
    writer.writerows({column: safe_cell(row[column]) for column in columns if column in row} for row in rows)
    write_text(path, text.getvalue())


def safe_cell(value: object) -> object:
    """Return a cell that no spreadsheet takes for a formula: a text such as ``=A1`` gets a quote before it.

    Numbers stay numbers, also those that are written as texts.
    """
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return QUOTE + value
    return value


def plain_cell(text: str) -> str:
    """Return the text that ``safe_cell`` was given."""
    return text[1:] if text.startswith(QUOTE) and text[1:].startswith(FORMULA) else text


def markdown_table(rows: Iterable[Sequence[object]], header: Sequence[str]) -> str:
    """Return a Markdown table whose columns line up in a terminal too."""
    cells = [[str(c) for c in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ['| ' + ' | '.join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + ' |' for row in cells]
    lines.insert(1, '| ' + ' | '.join('-' * w for w in widths) + ' |')
    return '\n'.join(lines)


def finite_mean(values: Iterable[float]) -> float:
    """Return the mean of the finite values; NaN where there is none."""
    kept = [v for v in values if math.isfinite(v)]
    return sum(kept) / len(kept) if kept else math.nan
