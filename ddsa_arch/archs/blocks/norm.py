"""Normalisation over the channels of each pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddsa_arch.archs.blocks import precision


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
        x = precision.full_precision(x).permute(0, 2, 3, 1)  # (B, H, W, C): free of copies when x is channels_last
        if self.bias is not None:
            x = F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        else:
            variance = x.var(dim=-1, keepdim=True, unbiased=False)
            x = x * torch.rsqrt(variance + self.eps) * self.weight
        return x.permute(0, 3, 1, 2)
