"""Attention between channels instead of pixels, and its Transformer block, from Restormer.

Written from the paper (https://arxiv.org/abs/2111.09881) and a description of its release. The attribute names are
those of the published weights.

Shapes: B batch, C channels, h heads, d = C / h channels per head, N = H * W pixels.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ddsa_arch.archs.blocks.norm import ChannelLayerNorm
from ddsa_arch.archs.blocks.precision import full_precision

NORM_EPS = 1e-12  # smallest norm of a query or key, as torch.nn.functional.normalize has it


def channel_scores(q: Tensor, k: Tensor, temperature: Tensor) -> Tensor:
    """Cosine of every query channel with every key channel, times the temperature of the head.

    Args:
        q: ``(B, h, N, d)``, any range.
        k: ``(B, h, N, d)``.
        temperature: ``(h, 1, 1)``.

    Returns:
        ``(B, h, d, d)``, rows for queries; float32 under autocast too, as the sums run over N pixels.
    """
    with torch.autocast(q.device.type, enabled=False):
        q, k = full_precision(q), full_precision(k)
        scores = q.transpose(-2, -1) @ k
        # the norms over the pixels are divided out of the small matrix: no normalised copies of q and k
        return scores * (temperature / (pixel_norm(q).transpose(-2, -1) * pixel_norm(k)))


def pixel_norm(x: Tensor) -> Tensor:
    """Euclidean norm of each channel over the pixels, at least NORM_EPS: (B, h, N, d) -> (B, h, 1, d)."""
    # not vector_norm: on a CPU it adds up rows one by one and is 200 times less exact for 512 x 512 pixels, and slower
    return x.square().sum(dim=-2, keepdim=True).clamp_min(NORM_EPS**2).sqrt()


def row_softmax(scores: Tensor) -> Tensor:
    """Softmax over the last axis, any shape."""
    return scores.softmax(dim=-1)


def transposed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    temperature: Tensor,
    attention_map: Callable[[Tensor], Tensor] = row_softmax,
) -> Tensor:
    """A(q k^T * temperature) v per head, with q and k of norm 1 over the pixels; (B, C, H, W) -> (B, C, H, W).

    Args:
        q: ``(B, C, H, W)``; k and v likewise. A head is a group of neighbouring channels.
        k: see q.
        v: see q.
        temperature: ``(h, 1, 1)``, one factor for each head; gives h.
        attention_map: A, from scores ``(B, h, d, d)`` to weights of the same shape; the softmax of each row.
    """
    height, width = q.shape[-2:]

    def by_head(x: Tensor) -> Tensor:
        # pixels before channels: a view for either memory format
        return x.permute(0, 2, 3, 1).flatten(1, 2).unflatten(-1, (len(temperature), -1)).transpose(1, 2)

    q, k, v = by_head(q), by_head(k), by_head(v)  # (B, h, N, d)
    attention = attention_map(channel_scores(q, k, temperature))  # (B, h, d, d)
    out = v @ attention.transpose(-2, -1)  # (attention v^T)^T, (B, h, N, d)
    return out.transpose(1, 2).flatten(2).unflatten(1, (height, width)).permute(0, 3, 1, 2)


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
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, dim * 3, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(dim * 3, dim * 3, 3, padding=1, groups=dim * 3, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        return self.project_out(transposed_attention(q, k, v, self.temperature, self.attention_map))

    def attention_map(self, scores: Tensor) -> Tensor:
        """The weights of the value channels, (B, h, d, d) from scores of that shape."""
        return row_softmax(scores)


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
