"""NeRD-Rain: bidirectional multi-scale implicit neural representations for image deraining
(https://arxiv.org/abs/2404.01547).

Written from the paper and a description of the release, whose names and weights are kept. What that description adds to
the paper: the implicit heads see no coordinates (the release feeds zeros), so each is a function of the 3x3
neighbourhood of a pixel, computed once here and four times there with one result; the smaller images are every second
and every fourth pixel; ``reduce_chan_level1_max2`` serves two decoders, and ``reduce_chan_level1_max3`` none.

Shapes: B batch, d channels, H x W pixels; small, mid and max are the scales of 1/4, 1/2 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ddsa_arch.archs.blocks.dense import keep_unused
from ddsa_arch.archs.blocks.gated_feedforward import GDFN
from ddsa_arch.archs.blocks.resample import Downsample, Upsample, under_body
from ddsa_arch.archs.blocks.transposed_attention import MDTA, TransformerBlock, norm_has_bias
from ddsa_arch.registration import register

HEAD_WIDTH = 256  # of the implicit heads
ENCODED = 18  # inputs of a head that should be encoded coordinates, and are zeros
CELL = 2.0  # the two last inputs, the size of a pixel in units of itself: (2 / H) H
LEVELS = 3
PASSES = {'small': 1, 'mid': 2, 'max': 3}  # U-Nets of each scale, one after the other
NUMBERED = ('encoder_level1', 'encoder_level2', 'latent', 'reduce_chan_level2', 'decoder_level2', 'reduce_chan_level1',
            'decoder_level1')  # kinds of modules whose first one is called 1 where there are several  # fmt: skip


def module_name(kind: str, scale: str, number: int) -> str:
    """The published name of a module of a scale's U-Net, such as ``down1_2_mid2``."""
    bare = PASSES[scale] == 1 or (number == 1 and kind not in NUMBERED)
    return f'{kind}_{scale}' if bare else f'{kind}_{scale}{number}'


def every_second_pixel(x: Tensor) -> Tensor:
    """Half the resolution by nearest interpolation, (B, d, H, W) -> (B, d, H/2, W/2)."""
    return x[..., ::2, ::2]


def every_pixel_twice(x: Tensor) -> Tensor:
    """Twice the resolution by nearest interpolation, (B, d, H, W) -> (B, d, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2.0, mode='nearest')


class Main(nn.Module):
    """A module under the key ``main.0``."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.main = nn.Sequential(module)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)


class Embedding(nn.Module):
    """A 3x3 convolution of the image, (B, 3, H, W) -> (B, d, H, W)."""

    def __init__(self, channels: int, dim: int, bias: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class NeighbourhoodLinear(nn.Linear):
    """A linear layer of the 3x3 neighbourhood of each pixel, zeros and two constants, (B, d, H, W) -> (B, out, H, W).

    It is a 3x3 convolution whose bias the constants raise.
    """

    def __init__(self, dim: int, out_features: int) -> None:
        super().__init__(9 * dim + ENCODED + 2, out_features)
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight[:, : 9 * self.dim].unflatten(1, (self.dim, 3, 3))
        return F.conv2d(x, kernel, self.bias + CELL * self.weight[:, -2:].sum(1), padding=1)


class PixelLinear(nn.Linear):
    """A linear layer of the channels of each pixel, (B, in, H, W) -> (B, out, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight[:, :, None, None], self.bias)


class Perceptron(nn.Module):
    """Four linear layers with ReLUs between them, of each pixel's neighbourhood, (B, d, H, W) -> (B, 3, H, W)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            NeighbourhoodLinear(dim, HEAD_WIDTH),
            nn.ReLU(),
            PixelLinear(HEAD_WIDTH, HEAD_WIDTH),
            nn.ReLU(),
            PixelLinear(HEAD_WIDTH, HEAD_WIDTH),
            nn.ReLU(),
            PixelLinear(HEAD_WIDTH, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ImplicitHead(nn.Module):
    """The implicit neural representation of an image, under ``imnet``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.imnet = Perceptron(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.imnet(x)


class BidirectionalFusion(nn.Module):
    """Fuse the features of two U-Nets, twice (B, C, H, W) -> one.

        A = sigmoid(Q p * K q),  p' = p A,  q' = q A,  (g, g') = G1 [p, p'],  (h, h') = G2 [q, q']
        out = p g + p' g' + q h + q' h'

    Args:
        dim: channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query_conv = nn.Conv2d(dim, dim, 3, padding=1)
        self.key_conv = nn.Conv2d(dim, dim, 3, padding=1)
        self.gamma1 = nn.Conv2d(2 * dim, 2, 3, padding=1)
        self.gamma2 = nn.Conv2d(2 * dim, 2, 3, padding=1)

    def forward(self, p: Tensor, q: Tensor) -> Tensor:
        alike = torch.sigmoid(self.query_conv(p) * self.key_conv(q))
        fused = []
        for features, gamma in ((p, self.gamma1), (q, self.gamma2)):
            chosen = features * alike
            first, second = gamma(torch.cat((features, chosen), dim=1)).chunk(2, dim=1)  # (B, 1, H, W) each
            fused.append(features * first + chosen * second)
        return fused[0] + fused[1]


@register(ARCH_REGISTRY)
class NeRDRain(nn.Module):
    """Three scales, coarse to fine by implicit heads, and back by the fusion of deep features (Fig. 2).

    Each U-Net has levels of d, 2d and 4d channels. The coarse scale gives an image to the finer one, whose U-Nets give
    their deepest features back before the coarse decoders run.

    Args:
        inp_channels: of the image.
        out_channels: of the output; equal, as residuals are added.
        dim: channels d at each scale's full size: 48, and 32 for NeRD-Rain-S.
        num_blocks: Transformer blocks of the three levels.
        heads: attention heads of the three levels.
        ffn_expansion_factor: hidden width of the feed-forward networks over their input's.
        bias: bias in the convolutions of blocks, levels and outputs.
        LayerNorm_type: ``WithBias``, or ``BiasFree``, which does not subtract the mean either.

    Shape: (B, 3, H, W) in [0, 1] -> a list of seven, not clamped: at 1/4 the input and the implicit image, at 1/2 half
    of the input and the implicit image, then the results at 1/4, 1/2 and 1. H and W are multiples of 16. (The release
    lists them the other way round.)

    Raises:
        ValueError: arguments that do not go together.
    """

    size_multiple = 16
    block_types = (TransformerBlock,)
    compiled_types = (TransformerBlock,)

    patch_embed_small: nn.Module
    patch_embed_mid: nn.Module
    patch_embed_max: nn.Module
    output_small: nn.Module
    output_mid: nn.Module
    output_mid_context: nn.Module
    output_max: nn.Module
    output_max_context1: nn.Module
    output_max_context2: nn.Module
    reduce_chan_level1_max3: nn.Module
    INR: nn.Module
    INR2: nn.Module
    BF1: nn.Module
    BF2: nn.Module
    BF3: nn.Module
    upsmall2mid1: nn.Module
    upsmall2mid2: nn.Module
    upmid2max1: nn.Module
    upmid2max2: nn.Module

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (2, 3, 3),
        heads: Sequence[int] = (1, 2, 4),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: str = 'WithBias',
    ) -> None:
        super().__init__()
        if inp_channels != out_channels or out_channels != 3:
            raise ValueError(
                f'inp_channels: {inp_channels}, out_channels: {out_channels}; residuals of RGB want 3 and 3'
            )
        for name, values in (('num_blocks', num_blocks), ('heads', heads)):
            if len(values) != LEVELS:
                raise ValueError(
                    f'{name}: {list(values)} has {len(values)} entries; one for each of the {LEVELS} levels'
                )
        norm_bias = norm_has_bias(LayerNorm_type)
        widths = [dim << level for level in range(LEVELS)]

        def stage(level: int) -> nn.Sequential:
            return nn.Sequential(*(block(level) for _ in range(num_blocks[level])))

        def block(level: int) -> TransformerBlock:
            attention = MDTA(widths[level], heads[level], bias)
            feedforward = GDFN(widths[level], ffn_expansion_factor, bias)
            attention.add_module('qkv_dwconv', Main(attention.qkv_dwconv))
            feedforward.add_module('dwconv', Main(feedforward.dwconv))
            return TransformerBlock(widths[level], attention, feedforward, norm_bias)

        def reduce(level: int) -> nn.Conv2d:
            return nn.Conv2d(2 * widths[level], widths[level], 1, bias=bias)

        kinds = {
            'encoder_level1': lambda: stage(0),
            'down1_2': lambda: under_body(Downsample(widths[0])),
            'encoder_level2': lambda: stage(1),
            'down2_3': lambda: under_body(Downsample(widths[1])),
            'latent': lambda: stage(2),
            'up3_2': lambda: under_body(Upsample(widths[2])),
            'reduce_chan_level2': lambda: reduce(1),
            'decoder_level2': lambda: stage(1),
            'up2_1': lambda: under_body(Upsample(widths[1])),
            'reduce_chan_level1': lambda: reduce(0),
            'decoder_level1': lambda: stage(0),
        }
        outputs = {
            'small': {'output_small': 3},
            'mid': {'output_mid': 3, 'output_mid_context': dim},
            'max': {'output_max': 3, 'output_max_context1': dim, 'output_max_context2': dim},
        }
        for scale, passes in PASSES.items():
            self.add_module(f'patch_embed_{scale}', Embedding(inp_channels, dim, bias))
            for kind, make in kinds.items():
                for number in range(1, passes + 1):
                    self.add_module(module_name(kind, scale, number), make())
            for name, channels in outputs[scale].items():
                self.add_module(name, nn.Conv2d(dim, channels, 3, padding=1, bias=bias))
            if scale != 'max':
                self.add_module({'small': 'INR', 'mid': 'INR2'}[scale], ImplicitHead(dim))
        keep_unused(self, reduce_chan_level1_max3=self.reduce_chan_level1_max3)
        for name in ('BF1', 'BF2', 'BF3'):
            self.add_module(name, BidirectionalFusion(widths[2]))
        for name in ('upsmall2mid', 'upmid2max'):
            for step, width in enumerate((widths[2], widths[1]), start=1):
                self.add_module(f'{name}{step}', under_body(Upsample(width)))

    def encode(self, features: Tensor, scale: str, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Encoder of a U-Net, (B, d, H, W) -> features of its three levels, the last (B, 4d, H/4, W/4)."""
        first = self._part('encoder_level1', scale, number)(features)
        second = self._part('encoder_level2', scale, number)(self._part('down1_2', scale, number)(first))
        return first, second, self._part('latent', scale, number)(self._part('down2_3', scale, number)(second))

    def decode(self, first: Tensor, second: Tensor, latent: Tensor, scale: str, number: int) -> Tensor:
        """Decoder of a U-Net, from the features of its three levels to (B, d, H, W)."""
        features = torch.cat((self._part('up3_2', scale, number)(latent), second), dim=1)
        features = self._part('reduce_chan_level2', scale, number)(features)
        features = self._part('decoder_level2', scale, number)(features)
        features = torch.cat((self._part('up2_1', scale, number)(features), first), dim=1)
        shared = 2 if (scale, number) == ('max', 3) else number  # as in the release
        features = self._part('reduce_chan_level1', scale, shared)(features)
        return self._part('decoder_level1', scale, number)(features)

    def _part(self, kind: str, scale: str, number: int) -> nn.Module:
        return getattr(self, module_name(kind, scale, number))

    def forward(self, x: Tensor) -> list[Tensor]:
        half, quarter = every_second_pixel(x), every_second_pixel(every_second_pixel(x))
        # coarse to fine: each scale's image is added to the input of the next
        small = self.encode(self.patch_embed_small(quarter), 'small', 1)
        small_image = quarter + self.INR(self.upsmall2mid2(self.upsmall2mid1(small[-1])))
        half_input = half + every_pixel_twice(small_image)
        mid = self.encode(self.patch_embed_mid(half_input), 'mid', 1)
        mid_image = half_input + self.INR2(self.upmid2max2(self.upmid2max1(mid[-1])))
        # the three U-Nets of the finest scale, all but the last decoder
        first = self.encode(self.patch_embed_max(x + every_pixel_twice(mid_image)), 'max', 1)
        features = self.output_max_context1(self.decode(*first, 'max', 1))
        second = self.encode(features, 'max', 2)
        features = self.output_max_context2(self.decode(*second, 'max', 2))
        third = self.encode(features, 'max', 3)
        # fine to coarse: deep features go back
        fused = every_second_pixel(self.BF1(first[-1], second[-1]))
        features = self.output_mid_context(self.decode(*mid[:2], mid[2] + fused, 'mid', 1))
        mid_again = self.encode(features, 'mid', 2)
        fused = every_second_pixel(self.BF3(mid[-1], mid_again[-1]))
        small_features = self.decode(*small[:2], small[2] + fused, 'small', 1)
        # and the results, coarse to fine
        fused = every_second_pixel(self.BF2(second[-1], third[-1]))
        mid_features = self.decode(*mid_again[:2], mid_again[2] + fused, 'mid', 2) + every_pixel_twice(small_features)
        max_features = self.decode(*third, 'max', 3) + every_pixel_twice(mid_features)
        results = [
            quarter + self.output_small(small_features),
            half + self.output_mid(mid_features),
            x + self.output_max(max_features),
        ]
        return [quarter, small_image, half_input / 2, mid_image, *results]
