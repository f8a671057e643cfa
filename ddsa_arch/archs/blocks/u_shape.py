"""The U-shape of Uformer (https://arxiv.org/abs/2106.03106, section 3.1), which IDT takes over.

Shapes: B batch, C = ``dim`` channels at full resolution; between the levels maps are (B, H, W, C).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ddsa_arch.archs.blocks.window_attention import init_linear_layers, named_sequential

LEVELS = 4  # down-samplings
STAGES = 2 * LEVELS + 1  # encoder 0 to 3, bottleneck, decoder 0 to 3


def stage_widths(dim: int) -> list[int]:
    """Channels of the nine stages; the decoder's are twice the encoder's, as it concatenates and does not reduce."""
    return [dim * 2**i for i in range(LEVELS)] + [dim * 2**LEVELS] + [dim * 2**i for i in range(LEVELS, 0, -1)]


def stage_sizes(img_size: int) -> list[int]:
    """Side of the maps of the nine stages for a square image."""
    encoder = [img_size // 2**i for i in range(LEVELS)]
    return [*encoder, img_size // 2**LEVELS, *reversed(encoder)]


def stage_drop_rates(depths: Sequence[int], rate: float) -> list[list[float]]:
    """Rates of stochastic depth, one list for each stage with one number for each of its blocks.

    From 0 to ``rate`` in equal steps over the encoder's blocks, ``rate`` in the bottleneck; the decoder takes the
    encoder's numbers backwards, as many as it has blocks.
    """
    if len(depths) != STAGES:
        raise ValueError(f'depths: {list(depths)} has {len(depths)} entries; one for each of the {STAGES} stages')
    if min(depths) < 1:
        raise ValueError(f'depths: {list(depths)} has a stage without blocks; at least 1 each')
    encoder, decoder = sum(depths[:LEVELS]), sum(depths[LEVELS + 1 :])
    if decoder > encoder:
        raise ValueError(
            f'depths: {list(depths)} has {decoder} blocks in the decoder and {encoder} in the encoder; at most as many'
        )
    rising = [rate * i / max(encoder - 1, 1) for i in range(encoder)]
    rates = iter([*rising, *[rate] * depths[LEVELS], *reversed(rising)])
    return [[next(rates) for _ in range(depth)] for depth in depths]


def check_heads(num_heads: Sequence[int], widths: Sequence[int]) -> None:
    """Raise a ValueError unless there are heads for each stage that divide its channels."""
    if len(num_heads) != STAGES:
        raise ValueError(f'num_heads: {list(num_heads)} has {len(num_heads)} entries; one for each of {STAGES} stages')
    for heads, width in zip(num_heads, widths, strict=True):
        if heads < 1 or width % heads:
            raise ValueError(f'num_heads: {heads} does not divide the {width} channels of its stage; take a divisor')


class Downsample(nn.Module):
    """Half the resolution by a 4x4 convolution of stride 2: (B, H, W, C) -> (B, H/2, W/2, 2C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(dim, dim * 2, 4, stride=2, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Upsample(nn.Module):
    """Twice the resolution by a transposed 2x2 convolution of stride 2: (B, H, W, C) -> (B, 2H, 2W, ``out``)."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.deconv = nn.Sequential(nn.ConvTranspose2d(dim, out, 2, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        return self.deconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class UShape(nn.Module):
    """Encoder, bottleneck and decoder with skips, (B, 3, H, W) -> (B, 3, H, W).

        X = LeakyReLU(conv3x3(I))
        E_i = encoder_i(X),  X = down_i(E_i)    for i = 0 .. 3
        X = bottleneck(X)
        X = decoder_i([up_i(X), E_{3-i}])    for i = 0 .. 3
        I' = I + conv3x3(X)

    Args:
        dim: C.
        stages: encoder 0 to 3, bottleneck, decoder 0 to 3, each a list of blocks (B, H, W, C') -> (B, H, W, C') of
            the width that ``stage_widths`` gives.
        bottleneck: what the published weights call it.
    """

    def __init__(self, dim: int, stages: Sequence[Sequence[nn.Module]], bottleneck: str) -> None:
        super().__init__()
        levels = [named_sequential('blocks', *blocks) for blocks in stages]
        widths = stage_widths(dim)
        self.bottleneck = bottleneck
        self.input_proj = named_sequential('proj', nn.Conv2d(3, dim, 3, padding=1), nn.LeakyReLU())
        for i in range(LEVELS):
            self.add_module(f'encoderlayer_{i}', levels[i])
            self.add_module(f'dowsample_{i}', Downsample(widths[i]))  # sic: the published name
        self.add_module(bottleneck, levels[LEVELS])
        for i in range(LEVELS):
            out = widths[LEVELS + 1 + i] // 2  # the skip brings the other half
            self.add_module(f'upsample_{i}', Upsample(widths[LEVELS + i], out))
            self.add_module(f'decoderlayer_{i}', levels[LEVELS + 1 + i])
        self.output_proj = named_sequential('proj', nn.Conv2d(dim * 2, 3, 3, padding=1))
        init_linear_layers(self)

    def forward(self, rain: Tensor) -> Tensor:
        x = self.input_proj(rain).permute(0, 2, 3, 1).contiguous()  # (B, H, W, C)
        skips = []
        for i in range(LEVELS):
            x = self.get_submodule(f'encoderlayer_{i}')(x)  # (B, H/2^i, W/2^i, 2^i C)
            skips.append(x)
            x = self.get_submodule(f'dowsample_{i}')(x)
        x = self.get_submodule(self.bottleneck)(x)  # (B, H/16, W/16, 16C)
        for i in range(LEVELS):
            x = torch.cat([self.get_submodule(f'upsample_{i}')(x), skips.pop()], dim=-1)
            x = self.get_submodule(f'decoderlayer_{i}')(x)  # (B, H/2^(3-i), W/2^(3-i), 2^(4-i) C)
        return rain + self.output_proj(x.permute(0, 3, 1, 2))
