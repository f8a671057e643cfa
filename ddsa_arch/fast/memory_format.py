"""The layout of features in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def layout(x: Tensor) -> torch.memory_format:
    """Return channels_last, or the contiguous format for float64, which oneDNN does not take and is slow otherwise."""
    return torch.contiguous_format if x.dtype == torch.float64 else torch.channels_last
