"""Attention between the channels of a head, for DDSA, MDTA, TKSA and the attention of ELF's association.

    P = q k^T * temperature, with q and k of norm 1 over the pixels     or     P = q k^T / sqrt(d)
    out = project(A(P) v)

P is a d x d matrix for each head, whatever the size of the image. No normalised copies of q and k are made, as their
norms can be divided out of P; maps are summed before they meet v; and the 1x1 convolution ``project`` is folded into
A(P), so that one product with v does for all:

    project(A v) = (W [A_1, ..., A_h]) v + b    with [A_1, ..., A_h] block-diagonal

Shapes: B batch, C channels, h heads, d = C / h channels per head, N = H * W pixels, O channels that come out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddsa_arch.archs import ddsanet_arch, drsformer_arch, elf_arch
from ddsa_arch.archs.blocks import transposed_attention
from ddsa_arch.archs.blocks.precision import full_precision
from ddsa_arch.archs.blocks.transposed_attention import NORM_EPS
from ddsa_arch.fast.eligible import conv_obstacle, is_touched, unobserved, unwrapped

CACHED_PIXELS = 2**13  # whose queries and keys stay in a cache while their products and squares are summed
HALO = 1  # pixels that the convolutions see around each


class DDSA(ddsanet_arch.DDSA):
    """Fast execution of DDSA."""

    def forward(self, x: Tensor) -> Tensor:
        if not unobserved(x) or self_attention_obstacle(self):
            return ddsanet_arch.DDSA.forward(self, x)
        return attend(self, x)


class MDTA(transposed_attention.MDTA):
    """Fast execution of MDTA."""

    def forward(self, x: Tensor) -> Tensor:
        if not unobserved(x) or self_attention_obstacle(self):
            return transposed_attention.MDTA.forward(self, x)
        return attend(self, x)


class TKSA(drsformer_arch.TKSA):
    """Fast execution of TKSA."""

    def forward(self, x: Tensor) -> Tensor:
        if not unobserved(x) or self_attention_obstacle(self):
            return drsformer_arch.TKSA.forward(self, x)
        return attend(self, x)


class AssociationAttention(elf_arch.AssociationAttention):
    """Fast execution of ELF's attention with three inputs."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if not unobserved(query) or association_obstacle(self):
            return elf_arch.AssociationAttention.forward(self, query, key, value)
        q, k, v = self.q(query), self.k(key), self.v(value)
        return channel_attention(self, q, k, v)


SelfAttention = ddsanet_arch.DDSA | transposed_attention.MDTA  # and TKSA, which is an MDTA
ChannelAttention = SelfAttention | elf_arch.AssociationAttention


def self_attention_obstacle(attention: SelfAttention) -> str | None:
    """Return why the fast form cannot stand in for this module; None if it can."""
    pointwise, depthwise = qkv_layers(attention)
    if is_touched(attention):
        return 'it has hooks or methods of its own'
    return (
        conv_obstacle(pointwise, 'the 1x1 convolution of q, k, v', 1)
        or conv_obstacle(depthwise, 'the depth-wise convolution of q, k, v', 3, groups=None)
        or conv_obstacle(attention.project_out, 'project_out', 1)
    )


def association_obstacle(attention: elf_arch.AssociationAttention) -> str | None:
    """Return why the fast form cannot stand in for this module; None if it can."""
    if is_touched(attention):
        return 'it has hooks or methods of its own'
    return conv_obstacle(attention.project_out, 'project_out', 1)


def qkv_layers(attention: SelfAttention) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Return the 1x1 convolution to 3C channels and the depth-wise one behind it."""
    if isinstance(attention, ddsanet_arch.DDSA):
        return attention.to_qkv, attention.encode_qkv
    return attention.qkv, cast(nn.Conv2d, unwrapped(attention.qkv_dwconv))  # or what an obstacle tells of


def attention_weights(attention: ChannelAttention, scores: Tensor) -> Tensor:
    """Return A, the weights of the value channels, (B, h, d, d), from scores of that shape."""
    if isinstance(attention, ddsanet_arch.DDSA):
        return attention.attention_map(scores)
    if isinstance(attention, drsformer_arch.TKSA):
        first, *others = attention.attention_maps(scores)
        return sum(others, first)
    return scores.softmax(dim=-1)


def attend(attention: SelfAttention, x: Tensor) -> Tensor:
    """Run the whole module, (B, C, H, W) -> the same."""
    pointwise, depthwise = qkv_layers(attention)
    q, k, v = depthwise(pointwise(x)).chunk(3, dim=1)
    return channel_attention(attention, q, k, v)


def channel_attention(attention: ChannelAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """project(A(P) v), (B, C, H, W) -> (B, O, H, W)."""
    scores = channel_scores(by_head(q, attention.heads), by_head(k, attention.heads), attention.temperature)
    return project_attended(v, attention_weights(attention, scores), attention.project_out)


class ScoreSum:
    """The scores P, whose sums over all pixels are gathered strip by strip.

    Args:
        heads: h.
        temperature: ``(h, 1, 1)``, one factor for each head; None for P = q k^T / sqrt(d).
    """

    def __init__(self, heads: int, temperature: Tensor | None) -> None:
        self.heads, self.temperature = heads, temperature
        self.products = torch.zeros(())
        self.squares = [torch.zeros(()), torch.zeros(())]

    def add(self, q: Tensor, k: Tensor) -> None:
        """Add the queries and keys of a strip, (1, C, h, w) each, to the sums."""
        with torch.autocast(q.device.type, enabled=False):
            parts = (by_head(x, self.heads).split(CACHED_PIXELS, dim=2) for x in (q, k))  # (1, h, n, d)
            for pair in zip(*parts, strict=True):
                q, k = (full_precision(x) for x in pair)
                self.products = self.products + q.transpose(-2, -1) @ k
                if self.temperature is not None:
                    self.squares = [total + sum_of_squares(x) for total, x in zip(self.squares, (q, k), strict=True)]

    def scores(self) -> Tensor:
        """Return the scores P of all strips so far, (1, h, d, d)."""
        if self.temperature is None:
            return self.products / math.sqrt(self.products.shape[-1])
        q_norm, k_norm = (total.clamp_min(NORM_EPS**2).sqrt() for total in self.squares)
        return scale_scores(self.products, q_norm, k_norm, self.temperature)


def encode(attention: SelfAttention, x: Tensor, parts: Sequence[str]) -> list[Tensor]:
    """Compute queries, keys or values, each as a tensor of its own, (B, C, H, W) -> the same.

    Args:
        attention: whose convolutions.
        x: features.
        parts: ``q``, ``k``, ``v``.
    """
    pointwise, depthwise = qkv_layers(attention)
    return [
        F.conv2d(F.conv2d(x, *_rows(pointwise, part)), *_rows(depthwise, part), padding=1, groups=x.shape[1])
        for part in parts
    ]


def _rows(layer: nn.Conv2d, part: str) -> tuple[Tensor, Tensor | None]:
    """Return the third of a convolution's weight and bias that gives the queries, the keys or the values."""
    third = 'qkv'.index(part)
    return layer.weight.chunk(3)[third], None if layer.bias is None else layer.bias.chunk(3)[third]


def by_head(x: Tensor, heads: int) -> Tensor:
    """(B, C, H, W) -> (B, h, N, d): pixels before channels, which is a view when x is channels_last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2).unflatten(-1, (heads, -1)).transpose(1, 2)


def channel_scores(q: Tensor, k: Tensor, temperature: Tensor | None) -> Tensor:
    """P: how much each query channel has in common with each key channel.

    Args:
        q: ``(B, h, N, d)``, any range.
        k: ``(B, h, N, d)``.
        temperature: see ``ScoreSum``.

    Returns:
        ``(B, h, d, d)``, rows for queries; float32 under autocast too, as the sums run over N pixels.
    """
    with torch.autocast(q.device.type, enabled=False):
        q, k = full_precision(q), full_precision(k)
        scores = q.transpose(-2, -1) @ k
        if temperature is None:
            return scores / math.sqrt(q.shape[-1])
        return scale_scores(scores, pixel_norm(q), pixel_norm(k), temperature)


def scale_scores(products: Tensor, q_norm: Tensor, k_norm: Tensor, temperature: Tensor) -> Tensor:
    """Scores of normalised queries and keys, (B, h, d, d) from the products and the norms (B, h, 1, d)."""
    return products * (temperature / (q_norm.transpose(-2, -1) * k_norm))


def pixel_norm(x: Tensor) -> Tensor:
    """Euclidean norm of each channel over the pixels, at least NORM_EPS: (B, h, N, d) -> (B, h, 1, d)."""
    return sum_of_squares(x).clamp_min(NORM_EPS**2).sqrt()


def sum_of_squares(x: Tensor) -> Tensor:
    """Sum the squares of each channel over the pixels, (B, h, N, d) -> (B, h, 1, d)."""
    # not vector_norm: on a CPU it adds up rows one by one and is 200 times less exact for 512 x 512 pixels, and slower
    return x.square().sum(dim=-2, keepdim=True)


def project_attended(v: Tensor, weights: Tensor, project: nn.Conv2d) -> Tensor:
    """project(A v) by one product, (B, C, H, W) -> (B, O, H, W).

    Args:
        v: ``(B, C, H, W)``.
        weights: A, ``(B, h, d, d)``.
        project: 1x1 convolution from C to O channels.
    """
    folded = fold_projection(weights, project)
    pixels = v.permute(0, 2, 3, 1).flatten(1, 2)  # (B, N, C)
    out = pixels @ folded.to(v.dtype).transpose(1, 2)  # (B, N, O)
    if project.bias is not None:
        out = out + project.bias.to(out.dtype)
    return out.unflatten(1, v.shape[-2:]).permute(0, 3, 1, 2)


def fold_projection(weights: Tensor, project: nn.Conv2d) -> Tensor:
    """Return W [A_1, ..., A_h], (B, O, C), which does in one product what the attention and project do to the values.

    Args:
        weights: A, ``(B, h, d, d)``.
        project: 1x1 convolution from C to O channels; its bias is left out.
    """
    with torch.autocast(weights.device.type, enabled=False):
        weight = full_precision(project.weight).flatten(1).unflatten(1, (weights.shape[1], -1))  # (O, h, d)
        return torch.einsum('ohd,bhde->bohe', weight, full_precision(weights)).flatten(2)
