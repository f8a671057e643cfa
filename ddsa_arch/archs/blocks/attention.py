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
        pooled = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)  # (B, 2, H, W)
        return x * self.conv(pooled).sigmoid()
