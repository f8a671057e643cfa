"""Spatial attention of CBAM (https://arxiv.org/abs/1807.06521)."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor, nn

from ddsa_arch.archs.blocks.precision import full_precision


class SpatialAttention(nn.Module):
    """Weighs every pixel by what its channels say: x * sigmoid(conv7x7([mean_c(x), max_c(x)])).

    (B, C, H, W) -> (B, C, H, W), for any C.
    """

    halo = 3  # pixels that it sees around each

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return weigh(x, self.weights(x))

    def weights(self, x: Tensor) -> Tensor:
        """The factor of each pixel, (B, 1, H, W) in (0, 1)."""
        return self.from_pooled(ChannelPool(x).result())

    def from_pooled(self, pooled: Tensor) -> Tensor:
        """The factor of each pixel from the mean and the maximum of its channels, (B, 2, H, W) -> (B, 1, H, W)."""
        return self.conv(pooled).sigmoid()


class ChannelPool:
    """Mean and maximum over the channels of each pixel, which may come in parts, (B, C_i, H, W) each."""

    def __init__(self, *parts: Tensor) -> None:
        self.sums: list[Tensor] = []
        self.largest: list[Tensor] = []
        self.channels = 0
        for part in parts:
            self.add(part)

    def add(self, part: Tensor) -> None:
        """Take in some more channels."""
        pixels = part.permute(0, 2, 3, 1)  # (B, H, W, C): reductions over the last axis, forward and backward
        if part.device.type == 'cpu' and not torch.is_grad_enabled():
            pixels = full_precision(pixels)  # the maximum of bfloat16 takes four times as long
        self.sums.append(pixels.sum(dim=-1))
        self.largest.append(pixels.amax(dim=-1))  # makes no indices, so that it takes a quarter of the time of max
        self.channels += part.shape[1]

    def result(self) -> Tensor:
        """(B, 2, H, W)."""
        return torch.stack([sum(self.sums) / self.channels, reduce(torch.maximum, self.largest)], dim=1)


def weigh(x: Tensor, weights: Tensor) -> Tensor:
    """x times a factor for each pixel, (B, C, H, W) and (B, 1, H, W) -> (B, C, H, W) in x's memory format."""
    return (x.permute(0, 2, 3, 1) * weights.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def add_weighed(out: Tensor | None, x: Tensor, weights: Tensor) -> Tensor:
    """out + weigh(x, weights), in place; None for an out of 0."""
    if out is None:
        return weigh(x, weights)
    pixels, x, weights = (tensor.permute(0, 2, 3, 1) for tensor in (out, x, weights))
    pixels.addcmul_(x, weights)
    return out
