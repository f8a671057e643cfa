"""Normalisation over the channels of each pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddsa_arch.archs.blocks.precision import full_precision


class ChannelLayerNorm(nn.Module):
    """Layer normalisation over the C channels of each pixel, (B, C, H, W) -> (B, C, H, W).

    With bias ``(x - mean) / sqrt(var + eps) * weight + bias``. Without bias, as Restormer
    (https://arxiv.org/abs/2111.09881) defines it, the mean is not subtracted: ``x / sqrt(var + eps) * weight``,
    with the variance still taken about the mean.

    Args:
        dim: channels C.
        bias: whether the mean is subtracted and a bias added.
        eps: added to the variance.
    """

    def __init__(self, dim: int, bias: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)  # (B, H, W, C): free of copies when x is channels_last
        if self.bias is not None and _in_one_pass(x):
            with torch.autocast('cpu', enabled=False):
                x = F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        elif self.bias is not None:
            x = full_precision(x)
            x = F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        else:
            x = full_precision(x)
            variance = x.var(dim=-1, keepdim=True, unbiased=False)
            x = x * torch.rsqrt(variance + self.eps) * self.weight
        return x.permute(0, 3, 1, 2)


def _in_one_pass(x: Tensor) -> bool:
    """Whether torch has a kernel from bfloat16 to bfloat16 with float32 inside and float32 weights.

    It rounds once, as the convolution that takes the result under autocast would. In training the result stays float32.
    """
    return x.dtype == torch.bfloat16 and x.device.type == 'cpu' and not torch.is_grad_enabled()
