"""Attention between the channels of a head: what DDSA, MDTA and their kin have in common.

    P = q k^T * temperature, with q and k of norm 1 over the pixels     or     P = q k^T / sqrt(d)
    out = project(A(P) v)

P is a d x d matrix for each head, whatever the size of the image. The fast form makes no normalised copies of q and
k, as their norms can be divided out of P, sums maps before they meet v, and folds the 1x1 convolution ``project`` into
A(P), so that one product with v does for all:

    project(A v) = (W [A_1, ..., A_h]) v + b    with [A_1, ..., A_h] block-diagonal

Shapes: B batch, C channels, h heads, d = C / h channels per head, N = H * W pixels, O channels that come out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddsa_arch.archs.blocks.plain_form import is_plain
from ddsa_arch.archs.blocks.precision import full_precision

CACHED_PIXELS = 2**13  # whose queries and keys stay in a cache while their products and squares are summed
NORM_EPS = 1e-12  # smallest norm of a query or key, as torch.nn.functional.normalize has it

# A, from scores (B, h, d, d) to weights of the same shape, or to several that are to be summed
AttentionMap = Callable[[Tensor], Tensor | Sequence[Tensor]]


def row_softmax(scores: Tensor) -> Tensor:
    """Softmax over the last axis, any shape."""
    return scores.softmax(dim=-1)


def channel_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    temperature: Tensor | None,
    project: nn.Conv2d,
    attention_map: AttentionMap = row_softmax,
) -> Tensor:
    """project(A(P) v), (B, C, H, W) -> (B, O, H, W).

    Args:
        q: ``(B, C, H, W)``; k and v likewise. A head is a group of neighbouring channels.
        k: see q.
        v: see q.
        heads: h.
        temperature: ``(h, 1, 1)``, one factor for each head; None for P = q k^T / sqrt(d).
        project: 1x1 convolution from C to O channels.
        attention_map: A; the softmax of each row of P.
    """
    if is_plain():
        return plain_channel_attention(q, k, v, heads, temperature, project, attention_map)
    scores = channel_scores(by_head(q, heads), by_head(k, heads), temperature)
    return project_attended(v, attention_map(scores), project)


class ScoreSum:
    """P, gathered strip by strip.

    Args:
        heads: h.
        temperature: see ``channel_attention``.
    """

    def __init__(self, heads: int, temperature: Tensor | None) -> None:
        self.heads, self.temperature = heads, temperature
        self.products: Tensor | float = 0.0
        self.squares: list[Tensor | float] = [0.0, 0.0]

    def add(self, q: Tensor, k: Tensor) -> None:
        """Queries and keys of a strip, (1, C, h, w) each."""
        with torch.autocast(q.device.type, enabled=False):
            parts = (by_head(x, self.heads).split(CACHED_PIXELS, dim=2) for x in (q, k))  # (1, h, n, d)
            for some in zip(*parts, strict=True):
                some = [full_precision(x) for x in some]
                self.products = self.products + some[0].transpose(-2, -1) @ some[1]
                if self.temperature is not None:
                    self.squares = [total + sum_of_squares(x) for total, x in zip(self.squares, some, strict=True)]

    def scores(self) -> Tensor:
        """(1, h, d, d)."""
        if self.temperature is None:
            return self.products / math.sqrt(self.products.shape[-1])
        norms = (total.clamp_min(NORM_EPS**2).sqrt() for total in self.squares)
        return scale_scores(self.products, *norms, self.temperature)


class ChannelAttention(nn.Module):
    """Attention between channels whose queries, keys and values come from a 1x1 and a depth-wise 3x3 convolution.

        q, k, v = split(DW3x3(conv1x1(x)))
        out = project_out(A(P) v)

    A network gives these layers the names of its paper or of its published weights: ``layers`` tells them. It may
    have another ``attention_map`` than the softmax.
    """

    halo = 1  # pixels that the convolutions see around each
    heads: int
    temperature: nn.Parameter | None
    project_out: nn.Conv2d

    @property
    def layers(self) -> tuple[nn.Conv2d, nn.Conv2d]:
        """The 1x1 convolution to 3C channels and the depth-wise one behind it."""
        raise TypeError(f'{type(self).__name__} names no layers')

    def forward(self, x: Tensor) -> Tensor:
        pointwise, depthwise = self.layers
        q, k, v = depthwise(pointwise(x)).chunk(3, dim=1)
        return channel_attention(q, k, v, self.heads, self.temperature, self.project_out, self.attention_map)

    def encode(self, x: Tensor, parts: Sequence[str]) -> list[Tensor]:
        """Queries, keys or values, each a tensor of its own, (B, C, H, W) -> the same.

        Args:
            parts: ``q``, ``k``, ``v``.
        """
        pointwise, depthwise = self.layers
        return [
            F.conv2d(F.conv2d(x, *_rows(pointwise, part)), *_rows(depthwise, part), padding=1, groups=x.shape[1])
            for part in parts
        ]

    def attention_map(self, scores: Tensor) -> Tensor | Sequence[Tensor]:
        """A: the weights of the value channels, (B, h, d, d) from scores of that shape, or several to be summed."""
        return row_softmax(scores)


def _rows(layer: nn.Conv2d, part: str) -> tuple[Tensor, Tensor | None]:
    """The third of a convolution's weight and bias that gives the queries, the keys or the values."""
    third = 'qkv'.index(part)
    return layer.weight.chunk(3)[third], None if layer.bias is None else layer.bias.chunk(3)[third]


def as_maps(attention: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    """One map or several, as several."""
    return [attention] if isinstance(attention, Tensor) else attention


def by_head(x: Tensor, heads: int) -> Tensor:
    """(B, C, H, W) -> (B, h, N, d): pixels before channels, which is a view when x is channels_last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2).unflatten(-1, (heads, -1)).transpose(1, 2)


def channel_scores(q: Tensor, k: Tensor, temperature: Tensor | None) -> Tensor:
    """P: how much each query channel has in common with each key channel.

    Args:
        q: ``(B, h, N, d)``, any range.
        k: ``(B, h, N, d)``.
        temperature: see ``channel_attention``.

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
    """Over the pixels, (B, h, N, d) -> (B, h, 1, d)."""
    # not vector_norm: on a CPU it adds up rows one by one and is 200 times less exact for 512 x 512 pixels, and slower
    return x.square().sum(dim=-2, keepdim=True)


def project_attended(v: Tensor, attention: Tensor | Sequence[Tensor], project: nn.Conv2d) -> Tensor:
    """project(attention v) by one product, (B, C, H, W) -> (B, O, H, W).

    Args:
        v: ``(B, C, H, W)``.
        attention: see ``fold_projection``.
        project: 1x1 convolution from C to O channels.
    """
    folded = fold_projection(attention, project)
    pixels = v.permute(0, 2, 3, 1).flatten(1, 2)  # (B, N, C)
    out = pixels @ folded.to(v.dtype).transpose(1, 2)  # (B, N, O)
    if project.bias is not None:
        out = out + project.bias.to(out.dtype)
    return out.unflatten(1, v.shape[-2:]).permute(0, 3, 1, 2)


def fold_projection(attention: Tensor | Sequence[Tensor], project: nn.Conv2d) -> Tensor:
    """W [A_1, ..., A_h], what project and the attention do to the values together: (B, O, C).

    Args:
        attention: ``(B, h, d, d)``, or several that are to be summed.
        project: 1x1 convolution from C to O channels; its bias is left out.
    """
    attention = sum(as_maps(attention))
    with torch.autocast(attention.device.type, enabled=False):
        weight = full_precision(project.weight).flatten(1).unflatten(1, (attention.shape[1], -1))  # (O, h, d)
        return torch.einsum('ohd,bhde->bohe', weight, full_precision(attention)).flatten(2)


def plain_channel_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    temperature: Tensor | None,
    project: nn.Conv2d,
    attention_map: AttentionMap,
) -> Tensor:
    """``channel_attention`` as it is published: q and k are normalised, each map multiplies v, then the convolution."""
    q, k, values = (x.unflatten(1, (heads, -1)).flatten(3) for x in (q, k, v))  # (B, h, d, N)
    with torch.autocast(q.device.type, enabled=False):
        q, k = full_precision(q), full_precision(k)
        if temperature is None:
            scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-2])
        else:
            q, k = F.normalize(q, dim=-1, eps=NORM_EPS), F.normalize(k, dim=-1, eps=NORM_EPS)
            scores = q @ k.transpose(-2, -1) * temperature
    attended = sum(attention @ values for attention in as_maps(attention_map(scores)))
    return project(attended.flatten(1, 2).unflatten(2, v.shape[-2:]))
