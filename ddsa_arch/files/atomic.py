"""Files and folders that are either whole or absent."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give the path of a temporary neighbour to write; it takes the name ``path`` when the block ends well.

    The neighbour is removed when the block raises. Missing parent folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary neighbour folder to fill; it takes the name ``path`` when the block ends well.

    A folder of that name is replaced, and stays until then. The neighbour is removed when the block raises. Missing
    parent folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part, old = (path.with_name(f'{path.name}.{os.getpid()}.{kind}') for kind in ('part', 'old.part'))
    part.mkdir()
    try:
        yield part
        replaces = path.exists()
        if replaces:
            os.replace(path, old)
        try:
            os.replace(part, path)
        except OSError:
            if replaces:
                os.replace(old, path)
            raise
    finally:
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with atomic_path(path) as part:
        part.write_text(text, encoding='utf-8')


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + '\n')
