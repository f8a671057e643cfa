"""Encoder-decoder branch and fusion blocks of ELF (https://arxiv.org/abs/2207.10455).

Written from the paper's and the release's description. The attribute names are those of the published weights:
``DSC`` is a depth-wise separable convolution, ``CAB`` a channel attention block, ``S2FB`` a fusion block.

Shapes: B batch, n channels at every level; h x w is the size of the features that enter the branch.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from ddsa_arch.archs.blocks.channel_attention import CA, CAB, same_conv


def separable_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """DSC: a depth-wise 3x3 convolution and a 1x1 convolution, with bias and nothing between them."""
    return nn.Sequential(
        OrderedDict(
            depth_conv=nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels),
            point_conv=nn.Conv2d(in_channels, out_channels, 1),
        )
    )


class S2FB(nn.Module):
    """Fusion block, p + CA(DSC([p, q])), two (B, n, h, w) -> the same. ``S2FB_2`` in the release.

    Args:
        channels: n.
        reduction: see CA.
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.DSC = separable_conv(channels * 2, channels)
        self.CA_fea = CA(channels, reduction)

    def forward(self, p: Tensor, q: Tensor) -> Tensor:
        return p + self.CA_fea(self.DSC(torch.cat([p, q], dim=1)))


class ProgressiveS2FB(nn.Module):
    """Fusion of x with the features of all three scales, four (B, n, h, w) -> the same. ``S2FB_p`` in the release.

        u = DSC3([x, DSC2([s1, DSC1([s2, s3])])])
        out = u + CA(u)

    Args:
        channels: n.
        reduction: see CA.
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.DSC1, self.DSC2, self.DSC3 = (separable_conv(channels * 2, channels) for _ in range(3))
        self.CA_fea = CA(channels, reduction)

    def forward(self, x: Tensor, s1: Tensor, s2: Tensor, s3: Tensor) -> Tensor:
        u = self.DSC1(torch.cat([s2, s3], dim=1))
        u = self.DSC2(torch.cat([s1, u], dim=1))
        u = self.DSC3(torch.cat([x, u], dim=1))
        return u + self.CA_fea(u)


class SeparableCAB(nn.Module):
    """Channel attention block of separable convolutions, (B, n, h, w) -> the same.

    S2FB(r, x) with r = CA(DSC(PReLU(DSC(x)))): the skip adds r, not x, which enters through the fusion alone.

    Args:
        channels: n.
        activation: handed in, as all blocks of a network share one PReLU.
        reduction: see CA.
    """

    def __init__(self, channels: int, activation: nn.Module, reduction: int = 4) -> None:
        super().__init__()
        self.CA = CA(channels, reduction)
        self.body = nn.Sequential(separable_conv(channels, channels), activation, separable_conv(channels, channels))
        self.S2FB2 = S2FB(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        return self.S2FB2(self.CA(self.body(x)), x)


class EncoderLevel(nn.Module):
    """S2FB(x, SeparableCAB(x)), (B, n, h, w) -> the same."""

    def __init__(self, channels: int, activation: nn.Module, reduction: int = 4) -> None:
        super().__init__()
        self.CAB1 = SeparableCAB(channels, activation, reduction)
        self.S2FB2 = S2FB(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        return self.S2FB2(x, self.CAB1(x))


class DecoderLevel(nn.Module):
    """S2FB(g, CAB(g)) with g = ProgressiveS2FB(x, s1, s2, s3), four (B, n, h, w) -> the same.

    Unlike the encoder's, this CAB has ordinary convolutions.
    """

    def __init__(self, channels: int, activation: nn.Module, reduction: int = 4) -> None:
        super().__init__()
        self.S2FB0 = ProgressiveS2FB(channels, reduction)
        self.CAB1 = CAB(channels, activation, reduction=reduction)
        self.S2FB2 = S2FB(channels, reduction)

    def forward(self, x: Tensor, s1: Tensor, s2: Tensor, s3: Tensor) -> Tensor:
        g = self.S2FB0(x, s1, s2, s3)
        return self.S2FB2(g, self.CAB1(g))


def resize(name: str, channels: int, factor: float) -> nn.Sequential:
    """Bilinear resizing by a factor and a 1x1 convolution, (B, n, h, w) -> (B, n, h * factor, w * factor).

    x0.5 of even sizes is the mean of 2x2 pixels; x0.25 is that of the central 2x2 of every 4x4 pixels, not of all 16.

    Args:
        name: ``down`` or ``up``, the key of the published weights.
        channels: n.
        factor: 0.25, 0.5, 2 or 4.
    """
    scale = nn.Upsample(scale_factor=factor, mode='bilinear', align_corners=False)
    return nn.Sequential(OrderedDict({name: nn.Sequential(scale, same_conv(channels, channels, 1))}))


class Encoder(nn.Module):
    """(B, n, h, w) -> e1, e2, e3, features at 1/2, 1/4 and 1/8 of that size; h and w multiples of 8.

    Args:
        channels: n.
        activation: the PReLU of all blocks.
        reduction: see CA.
    """

    def __init__(self, channels: int, activation: nn.Module, reduction: int = 4) -> None:
        super().__init__()
        self.encoder_level1, self.encoder_level2, self.encoder_level3 = (
            EncoderLevel(channels, activation, reduction) for _ in range(3)
        )
        self.down_stage1, self.down_stage2, self.down_stage3 = (resize('down', channels, 0.5) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        e1 = self.encoder_level1(self.down_stage1(x))
        e2 = self.encoder_level2(self.down_stage2(e1))
        e3 = self.encoder_level3(self.down_stage3(e2))
        return e1, e2, e3


class Decoder(nn.Module):
    """e1, e2, e3 of the encoder -> (B, n, h, w); every level sees the features of all three scales.

    ``down_13`` and the like lead the encoder's features from the first scale of their name to the second one,
    ``up_stage3`` and the like the decoder's from the level of their name to the next finer one.

    Args:
        channels: n.
        activation: the PReLU of all blocks.
        reduction: see CA.
    """

    def __init__(self, channels: int, activation: nn.Module, reduction: int = 4) -> None:
        super().__init__()
        self.decoder_level1, self.decoder_level2, self.decoder_level3 = (
            DecoderLevel(channels, activation, reduction) for _ in range(3)
        )
        self.up_stage1, self.up_stage2, self.up_stage3 = (resize('up', channels, 2) for _ in range(3))
        self.up_32, self.up_31, self.up_21 = (resize('up', channels, factor) for factor in (2, 4, 2))
        self.down_13, self.down_23, self.down_12 = (resize('down', channels, factor) for factor in (0.25, 0.5, 0.5))

    def forward(self, e1: Tensor, e2: Tensor, e3: Tensor) -> Tensor:
        z3 = self.decoder_level3(e3, e3, self.down_23(e2), self.down_13(e1))  # (B, n, h/8, w/8); e3 twice, as released
        z2 = self.decoder_level2(self.up_stage3(z3), e2, self.down_12(e1), self.up_32(e3))  # (B, n, h/4, w/4)
        z1 = self.decoder_level1(self.up_stage2(z2), e1, self.up_21(e2), self.up_31(e3))  # (B, n, h/2, w/2)
        return self.up_stage1(z1)
