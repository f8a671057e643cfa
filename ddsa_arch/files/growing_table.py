"""A CSV file that grows by a row at a time, and survives being cut off."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from ddsa_arch.files.atomic import telling_full_disks
from ddsa_arch.files.tables import plain_cell, safe_cell, write_csv


def read_table(path: str | Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file with a header, up to the first that is not whole; none if there is no file.

    A row is whole when its line has an end and as many cells as the header.
    """
    path = Path(path)
    if not path.is_file():
        return []
    text = path.read_bytes().decode('utf-8', errors='replace')
    lines = csv.reader(io.StringIO(text[: text.rfind('\n') + 1]))
    header = next(lines, [])
    rows = []
    for cells in lines:
        if len(cells) != len(header):
            break
        rows.append(dict(zip(header, map(plain_cell, cells), strict=True)))
    return rows


class GrowingTable:
    """Appends rows to a CSV file; each is on the disk when ``append`` returns.

    Args:
        path: its rows up to ``last`` are kept, what comes after them is dropped.
        key: name of the column that counts upwards in whole numbers.
        last: largest key that is kept; 0 begins anew.
    """

    def __init__(self, path: str | Path, key: str, last: int) -> None:
        self.path = Path(path)
        self.rows: list[Mapping[str, object]] = []
        for row in read_table(path):
            count = row.get(key, '')
            if not count.isdecimal() or int(count) > last:
                break
            self.rows.append(row)
        self.columns = list(self.rows[0]) if self.rows else []
        if self.rows:
            write_csv(self.path, self.rows, self.columns)
        else:
            self.path.unlink(missing_ok=True)

    def append(self, row: Mapping[str, object]) -> None:
        """Add a row. A column that is new is added to the rows before, whose cells there stay empty."""
        self.rows.append(row)
        new = [column for column in row if column not in self.columns]
        if new:
            self.columns += new
            write_csv(self.path, self.rows, self.columns)
            return
        with telling_full_disks(self.path.parent), self.path.open('a', encoding='utf-8', newline='') as file:
            cells = {column: safe_cell(value) for column, value in row.items()}
            csv.DictWriter(file, self.columns, lineterminator='\n').writerow(cells)
