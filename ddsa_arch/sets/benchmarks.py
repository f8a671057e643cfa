"""The training set and the five test sets of the field, as they are downloaded.

Counts and faults are those of the archives that the field's training scripts fetch from Google Drive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Benchmark:
    """A published set: its name, its number of pairs, and its known faults.

    Attributes:
        name: of the set, and of its folder under ``datasets/``.
        pairs: how many it has; 0 if that is not known to us.
        folders: names of a folder that holds its ``input`` and ``target``, in lower case.
        surplus: pairs of unequal sizes that some releases have beyond ``pairs``.
        strays: stems that were shipped by mistake.
        scene: pattern of stems whose first group names the photo, where one photo has several rains.
    """

    name: str
    pairs: int
    folders: tuple[str, ...]
    surplus: int = 0
    strays: tuple[str, ...] = ()
    scene: str | None = None


TRAIN_SET = Benchmark('Rain13K', 13711, ('rain13k', 'train'), surplus=1)
TEST_SETS = (
    Benchmark('Test100', 98, ('test100',)),
    Benchmark('Rain100H', 100, ('rain100h',)),
    Benchmark('Rain100L', 100, ('rain100l',)),
    Benchmark('Test2800', 2800, ('test2800',), strays=('926_10(1)',), scene=r'(\d+)_\d+'),
    Benchmark('Test1200', 1200, ('test1200',)),
)
BENCHMARKS = {benchmark.name: benchmark for benchmark in (TRAIN_SET, *TEST_SETS)}


def scene_of(set_name: str, stem: str) -> str:
    """Return the photo that an image of a set shows, as different rains on one photo are not independent."""
    pattern = BENCHMARKS[set_name].scene if set_name in BENCHMARKS else None
    match = re.fullmatch(pattern, stem) if pattern else None
    return match[1] if match else stem
