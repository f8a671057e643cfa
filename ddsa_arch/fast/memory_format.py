"""The layout of features in memory."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

Net = TypeVar('Net', bound=nn.Module)


def layout(x: Tensor) -> torch.memory_format:
    """Return channels_last, or the contiguous format for float64, which oneDNN does not take and is slow otherwise."""
    return torch.contiguous_format if x.dtype == torch.float64 else torch.channels_last


def lay_out(net: Net, memory_format: torch.memory_format) -> Net:
    """Bring the weights of a network into a layout, in place; the network itself."""
    return net.to(memory_format=memory_format)  # type: ignore[call-overload]  # torch's annotation lacks the keyword
