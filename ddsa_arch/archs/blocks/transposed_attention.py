"""Attention between channels instead of pixels, and its Transformer block, from Restormer.

Written from the paper (https://arxiv.org/abs/2111.09881) and a description of its release. The attribute names are
those of the published weights.

Shapes: B batch, C channels, h heads, d = C / h channels per head, N = H * W pixels.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from ddsa_arch.archs.blocks.attention_core import ChannelAttention
from ddsa_arch.archs.blocks.norm import ChannelLayerNorm
from ddsa_arch.archs.blocks.strips import in_strips, run_block


class MDTA(ChannelAttention):
    """Multi-Dconv head transposed attention (section 3.1 of the paper), (B, C, H, W) -> (B, C, H, W).

        q, k, v = split(DW3x3(conv1x1(x)))
        out = conv1x1(softmax(q k^T * temperature) v)

    Args:
        dim: channels C, a multiple of ``heads``.
        heads: h; each learns its temperature, 1 at first.
        bias: bias in the convolutions.
    """

    def __init__(self, dim: int, heads: int, bias: bool = False) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(
                f'heads: {heads} does not divide the {dim} channels; try {math.gcd(dim, max(heads, 1))}, or another dim'
            )
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, dim * 3, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(dim * 3, dim * 3, 3, padding=1, groups=dim * 3, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    @property
    def layers(self) -> tuple[nn.Conv2d, nn.Conv2d]:
        return self.qkv, self.qkv_dwconv


def layer_norm(dim: int, bias: bool = True) -> nn.Sequential:
    """A ChannelLayerNorm under the key ``body``, where the published weights have it."""
    return nn.Sequential(OrderedDict(body=ChannelLayerNorm(dim, bias)))


def norm_has_bias(layer_norm_type: str) -> bool:
    """Whether the published argument ``LayerNorm_type`` means a norm with bias; refuses what it does not know."""
    types = {'WithBias': True, 'BiasFree': False}
    if layer_norm_type not in types:
        raise ValueError(f'LayerNorm_type: {layer_norm_type!r} is not known; choose one of {", ".join(types)}')
    return types[layer_norm_type]


class TransformerBlock(nn.Module):
    """Restormer's block, (B, C, H, W) -> (B, C, H, W): x' = x + attn(LN(x)); out = x' + ffn(LN(x')).

    Args:
        dim: channels C.
        attn: keeps the shape.
        ffn: keeps the shape.
        norm_bias: whether the norms subtract the mean and add a bias.
    """

    def __init__(self, dim: int, attn: nn.Module, ffn: nn.Module, norm_bias: bool = True) -> None:
        super().__init__()
        self.norm1 = layer_norm(dim, norm_bias)
        self.attn = attn
        self.norm2 = layer_norm(dim, norm_bias)
        self.ffn = ffn

    @property
    def branches(self) -> tuple[nn.Module, nn.Module]:
        return self.attn, self.ffn

    def forward(self, x: Tensor) -> Tensor:
        if in_strips():
            return run_block(self, x)
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))
