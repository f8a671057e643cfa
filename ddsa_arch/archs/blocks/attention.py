"""Spatial attention of CBAM (https://arxiv.org/abs/1807.06521)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpatialAttention(nn.Module):
    """Weighs every pixel by what its channels say: x * sigmoid(conv7x7([mean_c(x), max_c(x)])).

    (B, C, H, W) -> (B, C, H, W), for any C.
    """

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.permute(0, 2, 3, 1)  # (B, H, W, C): reductions over the last axis, forward and backward
        pooled = torch.stack([pixels.mean(dim=-1), pixels.max(dim=-1).values], dim=1)  # (B, 2, H, W)
        weight = self.conv(pooled).sigmoid().permute(0, 2, 3, 1)  # (B, H, W, 1)
        return (pixels * weight).permute(0, 3, 1, 2)
