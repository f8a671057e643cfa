"""Work that several processes share besides training: they divide images, and bring the results together."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from itertools import chain, zip_longest
from typing import Any

import torch.distributed
from torch.utils.data import DataLoader, Dataset

MISSING = object()


def shared_loader(dataset: Dataset, rank: int, world_size: int) -> DataLoader:
    """Load every ``world_size``-th image of a set, from image ``rank`` on, one at a time."""
    assert isinstance(dataset, Sized)  # torch's Dataset alone promises no length
    return DataLoader(dataset, batch_size=1, sampler=range(rank, len(dataset), world_size))


def gather(part: Any) -> list[Any]:
    """Give every process the parts of all processes, in the order of their ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [part]
    parts = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, part)
    return parts


def interleave(parts: Sequence[Sequence[Any]]) -> list[Any]:
    """Undo ``shared_loader``: the first of each part, then the second of each, and so on."""
    return [item for item in chain.from_iterable(zip_longest(*parts, fillvalue=MISSING)) if item is not MISSING]
