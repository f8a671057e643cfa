"""The U-Net of DGUNet (https://arxiv.org/abs/2204.13348): half instance normalisation and fusion with earlier stages.

Shapes: B batch; C = n_feat channels, and C_l = n_feat + l * scale_unetfeats at the levels l = 1, 2, 3, which have 1,
1/2, 1/4 of the resolution; a last level has 1/8, and C_3 channels too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddsa_arch.archs.blocks import precision

UNET_LEVELS = 4  # the last without down-sampling


def unet_widths(n_feat: int, scale_unetfeats: int) -> list[int]:
    """Return the channels of the four levels: C, C_1, C_2, C_3."""
    return [n_feat + level * scale_unetfeats for level in range(UNET_LEVELS)]


class HalfInstanceNorm(nn.Module):
    """Instance normalisation of the first half of the channels, by each image's own statistics; the rest passes.

    (B, C, H, W) -> the same, in float32 under autocast. A single pixel becomes the bias (PyTorch's own would raise).
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels // 2))
        self.bias = nn.Parameter(torch.zeros(channels // 2))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        half = self.weight.shape[0]
        first, rest = x.split([half, x.shape[1] - half], dim=1)
        first = F.layer_norm(precision.full_precision(first), first.shape[2:], eps=self.eps)
        first = first * self.weight[:, None, None] + self.bias[:, None, None]
        return torch.cat([first.to(x.dtype), rest], dim=1)


class ConvBlock(nn.Module):
    """Two 3x3 convolutions beside a 1x1 convolution, (B, in_channels, H, W) -> (B, out_channels, H, W).

    lrelu(conv_2(lrelu(norm(conv_1(x))))) + identity(x) with slope 0.2.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.identity = nn.Conv2d(in_channels, out_channels, 1)
        self.conv_1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv_2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm = norm or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.norm(self.conv_1(x)), 0.2)
        y = F.leaky_relu(self.conv_2(y), 0.2)
        return y + self.identity(x)


class EncoderLevel(ConvBlock):
    """A level of the encoder, its fusion with the earlier stage, and the convolution that leads one level down.

    Inter-stage fusion, from the features E and D of the earlier stage's encoder and decoder at the same level:

        s = lrelu(csff_enc(E) + csff_dec(D)) with slope 0.1
        out = out * sigmoid(phi(s)) + gamma(s) + out

    Args:
        in_channels: of x, and of D.
        out_channels: of the output, and of E.
        fusion: whether there is an earlier stage's E and D.
        last: the last level leads no further down, and has no fusion.
    """

    def __init__(self, in_channels: int, out_channels: int, fusion: bool, last: bool) -> None:
        super().__init__(in_channels, out_channels, HalfInstanceNorm(out_channels))
        if fusion and not last:
            self.csff_enc = nn.Conv2d(out_channels, out_channels, 3, padding=1)
            self.csff_dec = nn.Conv2d(in_channels, out_channels, 3, padding=1)
            self.phi = nn.Conv2d(out_channels, out_channels, 3, padding=1)
            self.gamma = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.downsample = (
            nn.Identity() if last else nn.Conv2d(out_channels, out_channels, 4, stride=2, padding=1, bias=False)
        )

    def forward(self, x: Tensor, encoded: Tensor | None = None, decoded: Tensor | None = None) -> Tensor:
        out = super().forward(x)
        if encoded is None:
            return out
        s = F.leaky_relu(self.csff_enc(encoded) + self.csff_dec(decoded), 0.1)
        return out * self.phi(s).sigmoid() + self.gamma(s) + out


class Encoder(nn.Module):
    """(B, C, H, W) -> the features of the four levels before their down-sampling, from full to 1/8 resolution.

    Args:
        widths: C, C_1, C_2, C_3.
        fusion: with the features of an earlier stage.
    """

    def __init__(self, widths: Sequence[int], fusion: bool) -> None:
        super().__init__()
        bottom = widths[-1]
        levels = [EncoderLevel(i, o, fusion, last=False) for i, o in pairwise(widths)]
        self.body = nn.ModuleList([*levels, EncoderLevel(bottom, bottom, fusion, last=True)])

    def forward(self, x: Tensor, encoded: Sequence[Tensor], decoded: Sequence[Tensor]) -> list[Tensor]:
        """Encode x; ``encoded`` and ``decoded`` are the earlier stage's pyramids, empty where there is none."""
        features = []
        earlier = zip(encoded[:-1], reversed(decoded), strict=True)
        for level in self.body:
            features.append(level(x, *next(earlier, ())))  # the last level has no earlier features
            x = level.get_submodule('downsample')(features[-1])
        return features


class DecoderLevel(nn.Module):
    """One level up, conv_block([up(x), skip]), (B, in_channels, H/2, W/2) -> (B, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.conv_block = ConvBlock(out_channels * 2, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv_block(torch.cat([self.up(x), skip], dim=1))


class Decoder(nn.Module):
    """The encoder's features -> those of the decoder at 1/4, 1/2 and full resolution, C_2, C_1 and C channels."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        steps = list(pairwise(reversed(widths)))  # (C_3, C_2), (C_2, C_1), (C_1, C)
        self.body = nn.ModuleList([DecoderLevel(i, o) for i, o in steps])
        self.skip_conv = nn.ModuleList([nn.Conv2d(i, o, 3, padding=1) for i, o in steps])

    def forward(self, encoded: Sequence[Tensor]) -> list[Tensor]:
        *skips, x = encoded
        features = []
        for level, skip_conv, skip in zip(self.body, self.skip_conv, reversed(skips), strict=True):
            x = level(x, skip_conv(skip))
            features.append(x)
        return features
