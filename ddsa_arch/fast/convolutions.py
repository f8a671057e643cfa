"""Convolutions that do in the same pass what follows them.

In inference on a CPU, float32 or bfloat16 and channels_last go through oneDNN's own fusions, which torch.compile uses
too: an erf of GELU there costs half of what it does alone, and a product or a sum no pass over memory. Elsewhere the
same is done step by step.

Shapes: (B, C, H, W); weights as torch.nn.functional.conv2d takes them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ALIGNMENT = 8  # float32 numbers of a vector register; other widths cost a depth-wise convolution twice the time

ACTIVATIONS = {'none': lambda x: x, 'relu': F.relu, 'gelu': F.gelu}


def fused_type(x: Tensor) -> torch.dtype | None:
    """Return the type in which oneDNN's fusions take this tensor now, or None if they do not.

    float32, or bfloat16 under such autocast, where the processor multiplies it. The fusions have no gradient; and as
    autocast does not know them, what they get is cast to this type here.
    """
    if torch.is_grad_enabled() or x.device.type != 'cpu':
        return None
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return None
    if not hasattr(torch.ops.mkldnn, '_convolution_pointwise'):
        return None
    if not torch.is_autocast_enabled('cpu'):
        return torch.float32 if x.dtype == torch.float32 else None
    half = torch.get_autocast_dtype('cpu') == torch.bfloat16 and x.dtype in (torch.float32, torch.bfloat16)
    return torch.bfloat16 if half and torch.ops.mkldnn._is_mkldnn_bf16_supported() else None


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    activation: str = 'none',
) -> Tensor:
    """Compute activation(conv(x)).

    Args:
        activation: ``none``, ``relu`` or ``gelu`` (with erf).
    """
    dtype = fused_type(x)
    if activation == 'none' or dtype is None:
        return ACTIVATIONS[activation](F.conv2d(x, weight, bias, 1, padding, dilation, groups))
    return torch.ops.mkldnn._convolution_pointwise(
        *_cast(dtype, x, weight, bias), [padding] * 2, [1, 1], [dilation] * 2, groups, activation, [], 'none'
    )


def conv_times(x: Tensor, other: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int) -> Tensor:
    """Compute conv(x) * other, where other has the shape of conv(x)."""
    dtype = fused_type(x)
    if dtype is None:
        return F.conv2d(x, weight, bias, 1, padding, 1, groups) * other
    return torch.ops.mkldnn._convolution_pointwise.binary(
        *_cast(dtype, x, other, weight, bias), [padding] * 2, [1, 1], [1, 1], groups, 'mul', None, None, [], None
    )


def conv_add_(
    total: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    padding: int = 0,
    groups: int = 1,
    activation: str = 'none',
) -> Tensor:
    """Compute activation(total + conv(x)) and write it into total; None stands for a total of 0.

    Args:
        activation: ``none`` or ``relu``.
    """
    if total is None:
        return conv(x, weight, bias, padding, groups=groups, activation=activation)
    dtype = fused_type(x)
    if total.dtype != dtype or not total.is_contiguous(memory_format=torch.channels_last):
        total.add_(F.conv2d(x, weight, bias, 1, padding, 1, groups))
        return total.relu_() if activation == 'relu' else total
    return torch.ops.mkldnn._convolution_pointwise_.binary(
        total, *_cast(dtype, x, weight, bias), [padding] * 2, [1, 1], [1, 1], groups, 'add', 1.0,
        None if activation == 'none' else activation, [], None,
    )  # fmt: skip


def _cast(dtype: torch.dtype, *tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t.to(dtype) for t in tensors]


def aligned(weight: Tensor, dim: int = 0) -> Tensor:
    """Extend the weight by channels of zeros to the next multiple of ``ALIGNMENT`` along an axis."""
    missing = -weight.shape[dim] % ALIGNMENT
    if not missing:
        return weight
    return F.pad(weight, [0, 0] * (weight.ndim - 1 - dim) + [0, missing])


def channel_groups(channels: int, size: int) -> list[slice]:
    """Split channels into groups of at most about ``size``; all but the last are multiples of ``ALIGNMENT``."""
    count = -(-channels // max(size, 32))  # fewer channels make poor products
    step = -(-channels // count)
    step += -step % ALIGNMENT
    return [slice(start, min(start + step, channels)) for start in range(0, channels, step)]
