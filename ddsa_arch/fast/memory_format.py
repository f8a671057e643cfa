"""How features lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def layout(x: Tensor) -> torch.memory_format:
    """channels_last, but for float64, which oneDNN does not take and is slow that way."""
    return torch.contiguous_format if x.dtype == torch.float64 else torch.channels_last
