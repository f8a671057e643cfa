"""SFHformer: when fast Fourier transform meets Transformer for image restoration (ECCV 2024).

https://www.ecva.net/papers/eccv_2024/papers_ECCV/papers/06190.pdf

Written from a description of the release's deraining network, whose names and weights are kept, also two that have no
effect there. A block mixes pixels locally, by depth-wise convolutions, and globally, by a convolution of the spectrum.

Shapes: B batch, C channels of a level, H x W pixels, n channels of a map whose spectrum is taken.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.fx
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ddsa_arch.archs.blocks import precision
from ddsa_arch.archs.blocks.window_attention import named_sequential
from ddsa_arch.registration import register


@torch.fx.wrap
def spectrum(x: Tensor) -> Tensor:
    """Fourier-transform a real map, orthonormally, (B, n, H, W) -> (B, 2n, H, W // 2 + 1).

    Channel 2i of the result is the real part of channel i, channel 2i + 1 its imaginary part.
    """
    parts = torch.view_as_real(torch.fft.rfft2(x, norm='ortho'))  # (B, n, H, W // 2 + 1, 2)
    return parts.permute(0, 1, 4, 2, 3).flatten(1, 2)


@torch.fx.wrap
def from_spectrum(parts: Tensor, height: int, width: int) -> Tensor:
    """The real map of a half spectrum, (B, 2n, H, W // 2 + 1) -> (B, n, H, W), inverse of ``spectrum``.

    A convolved half spectrum is that of no real map: after the transform along H its first column, and its last where
    W is even, should be real. Their imaginary parts are dropped, as PyTorch does on a CPU; libraries differ.
    """
    parts = precision.full_precision(parts).unflatten(1, (-1, 2))
    real, imaginary = parts.unbind(2)  # (B, n, H, W // 2 + 1) each
    lines = torch.fft.ifft(torch.complex(real.contiguous(), imaginary.contiguous()), dim=-2, norm='ortho')
    column = torch.arange(lines.shape[-1], device=parts.device)
    free = (column > 0) & (2 * column != width)
    return torch.fft.irfft(torch.complex(lines.real, lines.imag * free), n=width, dim=-1, norm='ortho')


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Switch autocast off on the device of a tensor; what torch.fx traces knows no device and keeps autocast on."""
    return torch.autocast(x.device.type, enabled=False) if isinstance(x, Tensor) else nullcontext()


class FourierConvolution(nn.Module):
    """FFC: pointwise and depth-wise convolutions of the half spectrum, (B, n, H, W) -> the same.

        R = BN(F(x)),  R' = R + DW3x3(R),  out = F^-1(GELU(sum over groups g of w_g W_g R')),  w = softmax(W R')

    Args:
        dim: channels n.
        groups: of W_g; with the one group of the deraining network w is 1, and its weights have no effect.
    """

    def __init__(self, dim: int, groups: int = 1) -> None:
        super().__init__()
        self.groups = groups
        self.bn = nn.BatchNorm2d(2 * dim)
        self.fdc = nn.Conv2d(2 * dim, 2 * dim * groups, 1, groups=groups)
        self.weight = nn.Sequential(nn.Conv2d(2 * dim, groups, 1), nn.Softmax(dim=1))
        self.fpe = nn.Conv2d(2 * dim, 2 * dim, 3, padding=1, groups=2 * dim)
        self.act = nn.GELU()
        if groups == 1:
            self.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        with without_autocast(x):  # in 16 bits transforms take few sizes
            parts = self.bn(spectrum(precision.full_precision(x)))
            parts = parts + self.fpe(parts)
            mixed = self.fdc(parts)
            if self.groups > 1:
                weights = self.weight(parts)  # (B, groups, H, W // 2 + 1)
                mixed = (mixed.unflatten(1, (self.groups, -1)) * weights[:, :, None]).sum(1)
            return from_spectrum(self.act(mixed), height, width)


class GlobalMixer(nn.Module):
    """Mix all pixels by their spectrum, (B, C, H, W) -> the same: GELU(W2(Z + FFC(Z))), Z = GELU(W1 x) with 2C."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv_init = nn.Sequential(nn.Conv2d(dim, 2 * dim, 1), nn.GELU())
        self.conv_fina = nn.Sequential(nn.Conv2d(2 * dim, dim, 1), nn.GELU())
        self.FFC = FourierConvolution(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv_init(x)
        return self.conv_fina(features + self.FFC(features))


class LocalMixer(nn.Module):
    """Mix neighbours by a depth-wise 3x3, of dilation 2 in half of the channels, (B, C, H, W) -> the same."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2
        self.CDilated_1 = nn.Conv2d(half, half, 3, padding=1, groups=half)
        self.CDilated_2 = nn.Conv2d(half, half, 3, padding=2, dilation=2, groups=half)

    def forward(self, x: Tensor) -> Tensor:
        near, far = x.chunk(2, dim=1)
        return torch.cat((self.CDilated_1(near), self.CDilated_2(far)), dim=1)


class Mixer(nn.Module):
    """Mix pixels locally and globally, and weigh the results by channel, (B, C, H, W) -> the same.

    [l, g] = W x,  U = GELU([Local(l), Global(g)]),  out = W'(U * sigmoid(W2 ReLU(W1 mean(U))))
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer_local = LocalMixer(dim)
        self.mixer_gloal = GlobalMixer(dim)  # the published spelling
        self.ca_conv = nn.Sequential(nn.Conv2d(2 * dim, dim, 1))
        self.ca = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(2 * dim, dim, 1), nn.ReLU(), nn.Conv2d(dim, 2 * dim, 1), nn.Sigmoid()
        )
        self.gelu = nn.GELU()
        self.conv_init = nn.Sequential(nn.Conv2d(dim, 2 * dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        near, far = self.conv_init(x).chunk(2, dim=1)
        mixed = self.gelu(torch.cat((self.mixer_local(near), self.mixer_gloal(far)), dim=1))  # (B, 2C, H, W)
        return self.ca_conv(self.ca(mixed) * mixed)


class FeedForward(nn.Module):
    """W2 GELU([x0, DW3x3(x1), DW5x5(x2), DW7x7(x3)]) for the quarters of W1 x, (B, C, H, W) -> the same."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        part = dim // 2
        self.conv_init = nn.Sequential(nn.Conv2d(dim, 2 * dim, 1))
        self.conv1_1 = nn.Sequential(nn.Conv2d(part, part, 3, padding=1, groups=part))
        self.conv1_2 = nn.Sequential(nn.Conv2d(part, part, 5, padding=2, groups=part))
        self.conv1_3 = nn.Sequential(nn.Conv2d(part, part, 7, padding=3, groups=part))
        self.gelu = nn.GELU()
        self.conv_fina = nn.Sequential(nn.Conv2d(2 * dim, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        same, small, medium, large = self.conv_init(x).chunk(4, dim=1)
        mixed = torch.cat((same, self.conv1_1(small), self.conv1_2(medium), self.conv1_3(large)), dim=1)
        return self.conv_fina(self.gelu(mixed))


class SFHBlock(nn.Module):
    """x' = x + beta Mixer(BN(x)), out = x' + gamma FFN(BN(x')), (B, C, H, W) -> the same; beta and gamma begin at 0."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.zeros(1, dim, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, dim, 1, 1))
        self.norm1 = nn.BatchNorm2d(dim)
        self.norm2 = nn.BatchNorm2d(dim)
        self.mixer = Mixer(dim)
        self.ffn = FeedForward(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.beta * self.mixer(self.norm1(x))
        return x + self.gamma * self.ffn(self.norm2(x))


def layer(dim: int, depth: int) -> nn.Sequential:
    """Blocks of one level, under ``blocks``."""
    return named_sequential('blocks', *(SFHBlock(dim) for _ in range(depth)))


def downsample(dim: int) -> nn.Sequential:
    """Half the side, twice the channels."""
    return named_sequential('proj', nn.Conv2d(dim, 2 * dim, 2, stride=2))


def upsample(dim: int) -> nn.Sequential:
    """Twice the side, half the channels."""
    return named_sequential('proj', nn.Conv2d(dim, 2 * dim, 1, bias=False), nn.PixelShuffle(2))


@register(ARCH_REGISTRY)
class SFHformer(nn.Module):
    """The U-shaped network of three levels: I_restored = I + R, the network predicts R.

    Skips are concatenated and reduced by a 1x1 convolution. Norms are BatchNorms, those of spectra too, whose
    statistics belong to the size of the training patches. Convolutions begin as PyTorch initialises them.

    Args:
        width: channels at full resolution, a multiple of 4.
        depths: blocks of the levels from full resolution down and up again. Published: (1, 1, 2, 1, 1) t,
            (2, 2, 4, 2, 2) s, (4, 4, 8, 4, 4) m, (6, 6, 10, 6, 6) l.

    Shape: (B, 3, H, W) in [0, 1] -> the same; H and W multiples of 4; not clamped.

    Raises:
        ValueError: a width that is not a multiple of 4, or not five depths.
    """

    size_multiple = 4
    block_types = (SFHBlock,)
    compiled_types = (SFHBlock,)

    def __init__(self, width: int = 32, depths: Sequence[int] = (6, 6, 10, 6, 6)) -> None:
        super().__init__()
        if width < 4 or width % 4:
            raise ValueError(f'width: {width} is not a multiple of 4; try {4 * max(1, round(width / 4))}')
        if len(depths) != 5:
            raise ValueError(f'depths: {list(depths)} has {len(depths)} entries, wanted 5')
        one, two, four = width, 2 * width, 4 * width
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(3, one, 3, padding=1)))
        self.layer1 = layer(one, depths[0])
        self.skip1 = nn.Conv2d(two, one, 1)
        self.downsample1 = downsample(one)
        self.layer2 = layer(two, depths[1])
        self.skip2 = nn.Conv2d(four, two, 1)
        self.downsample2 = downsample(two)
        self.layer3 = layer(four, depths[2])
        self.upsample3 = upsample(four)
        self.layer8 = layer(two, depths[3])
        self.upsample4 = upsample(two)
        self.layer9 = layer(one, depths[4])
        self.patch_unembed = named_sequential('proj', nn.Conv2d(one, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        full = self.layer1(self.patch_embed(x))  # (B, C, H, W)
        half = self.layer2(self.downsample1(full))  # (B, 2C, H/2, W/2)
        features = self.layer3(self.downsample2(half))  # (B, 4C, H/4, W/4)
        features = self.layer8(self.skip2(torch.cat((self.upsample3(features), half), dim=1)))
        features = self.layer9(self.skip1(torch.cat((self.upsample4(features), full), dim=1)))
        return self.patch_unembed(features) + x
