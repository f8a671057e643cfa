"""ELF: image deraining meets association learning and Transformer (https://arxiv.org/abs/2207.10455).

Written from the paper's and the release's description; https://arxiv.org/abs/2311.05147 describes the same scheme. An
image deraining network estimates the rain at half the resolution; with that prior a background recovery network
restores the full image. The attribute names are those of the published weights:

    dsnet, ssnet    image deraining network, background recovery network
    stem    multi-input attention module (MAM), which associates the two
    orsnet, *_encoder, *_decoder, S2FB_fuse    the branches of the hybrid fusion network (HFN) and their fusion

The encoder-decoder branch and the fusion blocks: see archs/blocks/association.py.

Shapes: B batch, H x W pixels of the image, n = ``width`` channels.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ddsa_arch.archs.blocks.association import S2FB, Decoder, DecoderLevel, Encoder, EncoderLevel
from ddsa_arch.archs.blocks.channel_attention import CAB, same_conv
from ddsa_arch.archs.blocks.gated_feedforward import GDFN
from ddsa_arch.archs.blocks.transposed_attention import (
    MDTA,
    TransformerBlock,
    channel_scores,
    layer_norm,
    merge_heads,
    split_heads,
)  # fmt: skip
from ddsa_arch.registration import register

KERNEL = 3
GATES = {'prelu': nn.PReLU, 'gelu': nn.GELU}


def feed_forward(width: int, gate: str) -> GDFN:
    """The feed-forward network of every Transformer block; a PReLU as its gate has a slope of its own."""
    if gate not in GATES:
        raise ValueError(f'gate: {gate!r} is not known; choose one of {", ".join(GATES)}')
    return GDFN(width, activation=GATES[gate]())


def former(width: int, heads: int, gate: str) -> TransformerBlock:
    """Restormer's Transformer block, (B, n, h, w) -> the same."""
    return TransformerBlock(width, MDTA(width, heads), feed_forward(width, gate))


def quadrants(x: Tensor) -> Tensor:
    """The sampled sub-space: the quarters of an image as channels, (B, C, H, W) -> (B, 4C, H/2, W/2).

    Top left, top right, bottom left, bottom right. They are crops, no pixel-unshuffle: what lies at one place comes
    from four distant places of the image.
    """
    top, bottom = x.chunk(2, dim=2)
    (top_left, top_right), (bottom_left, bottom_right) = top.chunk(2, dim=3), bottom.chunk(2, dim=3)
    return torch.cat([top_left, top_right, bottom_left, bottom_right], dim=1)


def transposed_shuffle(x: Tensor) -> Tensor:
    """Pixel-shuffle by 2 with rows and columns exchanged, (B, 4C, h, w) -> (B, C, 2h, 2w).

    Channel 4c + 2i + j goes to row offset j and column offset i; torch.nn.PixelShuffle has row i and column j.
    """
    x = x.unflatten(1, (-1, 2, 2)).permute(0, 1, 4, 3, 5, 2)  # (B, C, h, j, w, i)
    return x.flatten(4).flatten(2, 3)


def upsample(x: Tensor) -> Tensor:
    """Bilinear, (B, C, h, w) -> (B, C, 2h, 2w)."""
    return F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)


class ORB(nn.Module):
    """Residual Transformer branch at its input's resolution: x + conv3x3(Formers(x)), (B, n, h, w) -> the same.

    Args:
        width: n.
        depth: number of Formers.
        heads: of their attention.
        gate: of their feed-forward networks, ``prelu`` or ``gelu``.
    """

    def __init__(self, width: int, depth: int, heads: int, gate: str) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f'depth: {depth} leaves no Former in a branch; the published network has 10')
        self.modules_body = nn.Sequential(*(former(width, heads, gate) for _ in range(depth)))
        self.conv = same_conv(width, width, KERNEL)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.modules_body(x))


class HybridFusion(nn.Module):
    """The layers of a hybrid fusion network, which stand alone in HFN and beside others in the networks below.

    The arguments are those of HFN.
    """

    prefix = ''  # of the encoder's and the decoder's published names

    def __init__(
        self, width: int = 48, depth: int = 10, heads: int = 2, reduction: int = 4, gate: str = 'prelu'
    ) -> None:
        super().__init__()
        prelu = nn.PReLU()
        self.orsnet = nn.Sequential(OrderedDict(orb=ORB(width, depth, heads, gate)))
        self.add_module(f'{self.prefix}encoder', Encoder(width, prelu, reduction))
        self.add_module(f'{self.prefix}decoder', Decoder(width, prelu, reduction))
        self.S2FB_fuse = S2FB(width, reduction)

    def hfn(self, x: Tensor) -> Tensor:
        """What HFN computes, (B, n, h, w) -> the same."""
        encoder, decoder = (self.get_submodule(self.prefix + name) for name in ('encoder', 'decoder'))
        return self.S2FB_fuse(self.orsnet(x), decoder(*encoder(x)))

    def shared_prelu(self) -> nn.Module:
        """The PReLU of its convolution blocks."""
        return self.get_submodule(f'{self.prefix}encoder.encoder_level1.CAB1.body.1')


@register(ARCH_REGISTRY)
class HFN(HybridFusion):
    """Hybrid fusion network, (B, n, h, w) -> the same; h and w multiples of 8.

    Self-attention for global structure and convolutions for local context, side by side:

        out = S2FB(ORB(x), decoder(encoder(x)))

    One PReLU, with one slope, serves all convolution blocks.

    Args:
        width: n.
        depth: Formers of the residual Transformer branch; 10 is the published size, the released file has 5.
        heads: of their attention.
        reduction: of the channel attention's hidden width.
        gate: of the feed-forward networks, ``prelu`` or ``gelu``.
    """

    def forward(self, x: Tensor) -> Tensor:
        return self.hfn(x)


class AssociationAttention(nn.Module):
    """Attention between channels with its own depth-wise convolution for each input, three (B, n, h, w) -> the same.

    conv1x1(softmax(q k^T * temperature) v) with q, k, v = DW3x3 of the inputs; q and k have norm 1 over the pixels.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f'heads of the MAM: {heads} does not divide the {width} channels; 1 always does')
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.q, self.k, self.v = (
            nn.Conv2d(width, width, KERNEL, padding=1, groups=width, bias=False) for _ in range(3)
        )
        self.project_out = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (split_heads(x, self.heads) for x in (self.q(query), self.k(key), self.v(value)))  # (B, h, d, N)
        attended = channel_scores(q, k, self.temperature).softmax(dim=-1) @ v
        return self.project_out(merge_heads(attended, query.shape))


class AssociationFormer(nn.Module):
    """Transformer block whose queries come from the rain, two (B, n, h, w) -> the same.

        a' = a + attention(LN(p), LN(a), LN(a));  out = a' + GDFN(LN(a'))

    Args:
        width: n.
        heads: of the attention.
        gate: of the feed-forward network, ``prelu`` or ``gelu``.
    """

    def __init__(self, width: int, heads: int, gate: str) -> None:
        super().__init__()
        # sic: the release calls the queries' norm `norm_key` and the keys' `norm_query`
        self.norm_key, self.norm_query, self.norm_value = (layer_norm(width) for _ in range(3))
        self.attn = AssociationAttention(width, heads)
        self.norm2 = layer_norm(width)
        self.ffn = feed_forward(width, gate)

    def forward(self, p: Tensor, a: Tensor) -> Tensor:
        a = a + self.attn(self.norm_key(p), self.norm_query(a), self.norm_value(a))
        return a + self.ffn(self.norm2(a))


@register(ARCH_REGISTRY)
class MAM(nn.Module):
    """Multi-input attention module: the estimated rain tells where to look in the rainy image.

        a = conv3x3, stride 2 (rainy);  p = conv3x3(rain);  m = conv3x3(background)
        out = S2FB(m, AssociationFormer(p, a))

    Rainy image (B, 3, H, W), rain and background (B, 3, H/2, W/2) -> (B, n, H/2, W/2).

    Args:
        width: n.
        heads: of the attention.
        reduction: of the channel attention's hidden width.
        gate: of the feed-forward network, ``prelu`` or ``gelu``.
    """

    def __init__(self, width: int = 48, heads: int = 1, reduction: int = 4, gate: str = 'prelu') -> None:
        super().__init__()
        self.conv_stem0 = nn.Conv2d(3, width, KERNEL, stride=2, padding=1, bias=False)
        self.conv_stem2 = same_conv(3, width, KERNEL)
        self.conv_stem3 = same_conv(3, width, KERNEL)
        self.former = AssociationFormer(width, heads, gate)
        self.S2FB = S2FB(width, reduction)

    def forward(self, rainy: Tensor, rain: Tensor, background: Tensor) -> Tensor:
        attended = self.former(self.conv_stem2(rain), self.conv_stem0(rainy))
        return self.S2FB(self.conv_stem3(background), attended)


class ImageDerainingNetwork(HybridFusion):
    """Estimates the rain at half the resolution; the published weights have its layers beside those of its HFN.

        f1 = CAB(conv(rainy x0.5));  f2 = Former(CAB(conv(quadrants(rainy))))
        rain = conv(HFN(conv([f1, f2])));  background = rainy x0.5 - rain

    (B, 3, H, W) -> rain and background, (B, 3, H/2, W/2) each. The arguments are HFN's; its PReLU serves f1 and f2 too.
    """

    prefix = 'dsnnet_'

    def __init__(self, width: int, depth: int, heads: int, reduction: int, gate: str) -> None:
        super().__init__(width, depth, heads, reduction, gate)
        prelu = self.shared_prelu()
        self.shallow_feat1, self.shallow_feat2 = (
            nn.Sequential(same_conv(channels, width, KERNEL), CAB(width, prelu, KERNEL, reduction))
            for channels in (3, 12)
        )
        self.former = nn.Sequential(former(width, 1, gate))
        self.fuse_conv = same_conv(width * 2, width, KERNEL)
        self.tail = same_conv(width, 3, KERNEL)

    def forward(self, rainy: Tensor) -> tuple[Tensor, Tensor]:
        half = F.avg_pool2d(rainy, 2)  # bilinear x0.5
        f1 = self.shallow_feat1(half)  # (B, n, H/2, W/2)
        f2 = self.former(self.shallow_feat2(quadrants(rainy)))
        f = self.fuse_conv(torch.cat([f1, f2], dim=1))
        rain = self.tail(self.hfn(f))
        return rain, half - rain


class BackgroundRecoveryNetwork(HybridFusion):
    """Restores the full image; the published weights have its layers beside those of its HFN.

        f = HFN(Former(MAM(rainy, rain, background)))
        restored = rainy - (conv(shuffle(conv(f))) + rain x2)

    Rainy image (B, 3, H, W), rain and background (B, 3, H/2, W/2) -> (B, 3, H, W). ``mam_heads`` are the heads of
    the MAM; the other arguments are HFN's.
    """

    prefix = 'ssnnet_'

    def __init__(self, width: int, depth: int, heads: int, mam_heads: int, reduction: int, gate: str) -> None:
        super().__init__(width, depth, heads, reduction, gate)
        if width % 2:
            raise ValueError(f'width: {width} is odd, and the last layer has half of the channels; try {width + 1}')
        self.stem = MAM(width, mam_heads, reduction, gate)
        self.former = nn.Sequential(former(width, 1, gate))
        self.deep_conv = same_conv(width, width * 2, KERNEL)
        self.tail = same_conv(width // 2, 3, KERNEL)

    def forward(self, rainy: Tensor, rain: Tensor, background: Tensor) -> Tensor:
        f = self.hfn(self.former(self.stem(rainy, rain, background)))  # (B, n, H/2, W/2)
        return rainy - self.full_size(f, rain)

    def full_size(self, f: Tensor, half: Tensor) -> Tensor:
        """An image (B, 3, H, W) from features (B, n, H/2, W/2) and the image that they refine (B, 3, H/2, W/2)."""
        return self.tail(transposed_shuffle(self.deep_conv(f))) + upsample(half)


class LightBackgroundRecoveryNetwork(BackgroundRecoveryNetwork):
    """The light-weight form: the Former follows the HFN, and the half-size background is refined, not the rain.

    restored = conv(shuffle(conv(Former(HFN(MAM(rainy, rain, background)))))) + background x2
    """

    def forward(self, rainy: Tensor, rain: Tensor, background: Tensor) -> Tensor:
        f = self.former(self.hfn(self.stem(rainy, rain, background)))  # (B, n, H/2, W/2)
        return self.full_size(f, background)


@register(ARCH_REGISTRY)
class ELF(nn.Module):
    """Association learning: rain estimation at half the resolution guides the recovery of the background.

    The defaults have the size that the paper states. The released file builds 5 Formers per branch whatever its options
    say: ``depth: 5`` is that network. Each of the two networks has one PReLU, with one slope, for all its channel
    attention blocks. Convolutions begin as PyTorch initialises them, norms and temperatures at 1, slopes at 0.25.

    Args:
        width: n, even.
        depth: Formers of each residual Transformer branch.
        heads: of the attention in these branches.
        mam_heads: of the attention in the MAM.
        reduction: of the channel attention's hidden width.
        gate: of the feed-forward networks, ``prelu`` or ``gelu``.

    Shape: (B, 3, H, W) in [0, 1] -> [background (B, 3, H/2, W/2), restored (B, 3, H, W)]; H and W multiples of 16;
    not clamped. The release gives the restored image first.
    """

    size_multiple = 16
    block_types = (TransformerBlock, EncoderLevel, DecoderLevel)  # `train.checkpoint_blocks` computes these anew
    compiled_types = (TransformerBlock,)  # which `train.compile` compiles, each for itself
    background_recovery = BackgroundRecoveryNetwork

    def __init__(
        self,
        width: int = 48,
        depth: int = 10,
        heads: int = 2,
        mam_heads: int = 1,
        reduction: int = 4,
        gate: str = 'prelu',
    ) -> None:
        super().__init__()
        self.dsnet = ImageDerainingNetwork(width, depth, heads, reduction, gate)
        self.ssnet = self.background_recovery(width, depth, heads, mam_heads, reduction, gate)

    def forward(self, rainy: Tensor) -> list[Tensor]:
        rain, background = self.dsnet(rainy)  # (B, 3, H/2, W/2) each
        return [background, self.ssnet(rainy, rain, background)]


@register(ARCH_REGISTRY)
class ELFLW(ELF):
    """ELF-LW, the light-weight ELF: see LightBackgroundRecoveryNetwork for what differs besides the defaults."""

    background_recovery = LightBackgroundRecoveryNetwork

    def __init__(
        self,
        width: int = 32,
        depth: int = 5,
        heads: int = 1,
        mam_heads: int = 4,
        reduction: int = 4,
        gate: str = 'gelu',
    ) -> None:
        super().__init__(width, depth, heads, mam_heads, reduction, gate)
