"""Changes of resolution by pixel-shuffle, as in Restormer (https://arxiv.org/abs/2111.09881)."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


class Downsample(nn.Module):
    """Half the resolution, twice the channels: (B, C, H, W) -> (B, 2C, H/2, W/2). H and W must be even."""

    def __init__(self, dim: int, bias: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim // 2, 3, padding=1, bias=bias)
        self.shuffle = nn.PixelUnshuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(self.conv(x))


class Upsample(nn.Module):
    """Twice the resolution, half the channels: (B, C, H, W) -> (B, C/2, 2H, 2W)."""

    def __init__(self, dim: int, bias: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim * 2, 3, padding=1, bias=bias)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(self.conv(x))


def under_body(block: Downsample | Upsample) -> nn.Sequential:
    """The same layers under the key names of Restormer's published weights, ``body.0`` for the convolution."""
    return nn.Sequential(OrderedDict(body=nn.Sequential(*block.children())))
