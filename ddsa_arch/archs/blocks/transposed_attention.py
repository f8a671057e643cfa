"""Attention between channels instead of pixels, and its Transformer block, from Restormer.

Written from the paper (https://arxiv.org/abs/2111.09881) and a description of its release. The attribute names are
those of the published weights.

Shapes: B batch, C channels, h heads, d = C / h channels per head, N = H * W pixels.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddsa_arch.archs.blocks import precision
from ddsa_arch.archs.blocks.norm import ChannelLayerNorm

NORM_EPS = 1e-12  # smallest norm of a query or key, as torch.nn.functional.normalize has it


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, C, H, W) -> (B, h, d, N); a head is a group of neighbouring channels."""
    return x.unflatten(1, (heads, -1)).flatten(3)


def merge_heads(x: Tensor, size: torch.Size) -> Tensor:
    """The inverse of ``split_heads``: (B, h, d, N) -> (B, C, H, W), where ``size`` is that of the features."""
    return x.flatten(1, 2).unflatten(2, size[-2:])


def channel_scores(q: Tensor, k: Tensor, temperature: Tensor | None) -> Tensor:
    """P: how much each query channel has in common with each key channel.

        P = q k^T * temperature, with q and k of norm 1 over the pixels     or     P = q k^T / sqrt(d)

    Args:
        q: ``(B, h, d, N)``, any range; k likewise.
        k: see q.
        temperature: ``(h, 1, 1)``, one factor for each head; None for the second form.

    Returns:
        ``(B, h, d, d)``, rows for queries; float32 under autocast too, as the sums run over N pixels.
    """
    if temperature is None:
        return precision.product(q, k.transpose(-2, -1)) / math.sqrt(q.shape[-2])
    q, k = (F.normalize(precision.full_precision(x), dim=-1, eps=NORM_EPS) for x in (q, k))
    return precision.product(q, k.transpose(-2, -1)) * temperature


class MDTA(nn.Module):
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

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        q, k, v = (split_heads(part, self.heads) for part in (q, k, v))  # (B, h, d, N)
        attended = self.attend(channel_scores(q, k, self.temperature), v)
        return self.project_out(merge_heads(attended, x.shape))

    def attend(self, scores: Tensor, v: Tensor) -> Tensor:
        """Weigh the values (B, h, d, N) by the softmax of the scores (B, h, d, d)."""
        return scores.softmax(dim=-1) @ v


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

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))
