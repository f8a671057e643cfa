"""Numbers that stay exact under mixed precision.

Where a network is traced by torch.fx, each of these functions stands as one operation, as what they do depends on the
type of their tensors. Call them through the module (``precision.product``): only so does torch.fx find them.
"""

from __future__ import annotations

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)


@torch.fx.wrap
def full_precision(x: Tensor) -> Tensor:
    """Return a tensor of 16 bits, which autocast makes, as float32, and any other tensor as it is."""
    return x.float() if x.dtype in HALF else x


@torch.fx.wrap
def full_precision_on_cpu(x: Tensor) -> Tensor:
    """Apply ``full_precision`` on a CPU; return the tensor as it is elsewhere."""
    return full_precision(x) if x.device.type == 'cpu' else x


@torch.fx.wrap
def product(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product a b, float32 under autocast too."""
    with torch.autocast(a.device.type, enabled=False):
        return full_precision(a) @ full_precision(b)


@torch.fx.wrap
def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v, float32 under autocast too.

    Args:
        q: ``(..., N, d)``; k and v likewise.
        k: see q.
        v: see q.
        bias: broadcasts to ``(..., N, N)``.
    """
    with torch.autocast(q.device.type, enabled=False):
        q, k, v, bias = (full_precision(t) for t in (q, k, v, bias))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
