"""Numbers that stay exact under mixed precision."""

from __future__ import annotations

import torch
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)


def full_precision(x: Tensor) -> Tensor:
    """float32 for a tensor of 16 bits, which autocast makes; any other tensor as it is."""
    return x.float() if x.dtype in HALF else x
