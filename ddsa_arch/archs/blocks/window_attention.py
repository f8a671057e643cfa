"""Attention inside windows of an image, as Uformer (https://arxiv.org/abs/2106.03106) has it and IDT takes over.

Features are maps with the channels last, (B, H, W, C): a window's pixels are then its tokens, and no copy is needed
between linear layers, norms and (channels_last) convolutions.

Shapes: B batch, C channels, M side of a window, n windows, h heads, d = C / h, N tokens of a window, N = M * M.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from ddsa_arch.archs.blocks import precision

INIT_STD = 0.02  # of linear weights and of the tables of relative position biases


def to_windows(x: Tensor, size: int) -> Tensor:
    """(B, H, W, C) -> (B, n, size * size, C), windows and the pixels in each row by row. H and W: multiples of size."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // size, size, width // size, size, channels)
    return x.transpose(2, 3).reshape(batch, -1, size * size, channels)


def from_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """The inverse of ``to_windows``: (B, n, N, C) -> (B, height, width, C)."""
    batch, _, tokens, channels = windows.shape
    size = math.isqrt(tokens)
    x = windows.view(batch, height // size, width // size, size, size, channels)
    return x.transpose(2, 3).reshape(batch, height, width, channels)


def relative_position_index(side: int, reach: int | None = None) -> Tensor:
    """For query i and key j the row of the table of biases that belongs to their distance, int64 (N, N).

    (dy + reach - 1) * (2 reach - 1) + dx + reach - 1, where (dy, dx) is the query's place minus the key's.

    Args:
        side: of the square of tokens, N = side * side, row by row.
        reach: distances are clamped to +-(reach - 1), so the table has (2 reach - 1)^2 rows. None: ``side``, which
            clamps nothing.
    """
    reach = reach or side
    place = torch.cartesian_prod(torch.arange(side), torch.arange(side))  # (N, 2): y, x
    distance = (place[:, None] - place[None]).clamp(1 - reach, reach - 1) + reach - 1  # (N, N, 2), from 0 up
    return distance[..., 0] * (2 * reach - 1) + distance[..., 1]


def position_bias(table: Tensor, index: Tensor) -> Tensor:
    """The bias of each pair of tokens, (1, h, N, N), from the table (rows, h) and ``relative_position_index``."""
    return table[index].permute(2, 0, 1)[None]


def new_bias_table(reach: int, heads: int) -> nn.Parameter:
    """The learnt table of relative position biases, ((2 reach - 1)^2, heads)."""
    table = nn.Parameter(torch.empty((2 * reach - 1) ** 2, heads))
    nn.init.trunc_normal_(table, std=INIT_STD)
    return table


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, C) -> (B, h, N, d); a head has consecutive channels."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v, heads merged; the scores are float32 under autocast.

    Args:
        q, k, v: (B, h, N, d).
        bias: broadcasts to (B, h, N, N).

    Returns:
        (B, N, C).
    """
    return precision.attention(q, k, v, bias).transpose(1, 2).flatten(2)


class LinearProjection(nn.Module):
    """Linear layers that give the queries, and keys or values with them: (..., C) -> 1 + ``others`` tensors."""

    def __init__(self, dim: int, others: int) -> None:
        super().__init__()
        self.others = others
        self.to_q = nn.Linear(dim, dim)
        self.to_kv = nn.Linear(dim, dim * others)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.to_q(x), *self.to_kv(x).chunk(self.others, dim=-1)


class LeFF(nn.Module):
    """Locally-enhanced feed-forward network of Uformer (section 3.2), (B, H, W, C) -> (B, H, W, C).

        a = GELU(x W_1)
        out = GELU(DWConv3x3(a)) W_2    Uformer
        out = (GELU(DWConv3x3(a)) + a) W_2    IDT

    Args:
        dim: channels C.
        hidden: channels of a.
        residual: True for the way of IDT.
    """

    def __init__(self, dim: int, hidden: int, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        self.linear1 = nn.Sequential(nn.Linear(dim, hidden), nn.GELU())
        self.dwconv = nn.Sequential(nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden), nn.GELU())
        self.linear2 = nn.Sequential(nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        a = self.linear1(x)  # (B, H, W, hidden)
        b = self.dwconv(a.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.linear2(b + a if self.residual else b)


class StochasticDepth(nn.Module):
    """Leaves a residual branch out for random samples of a training batch (https://arxiv.org/abs/1603.09382).

    What is kept is divided by 1 - rate, so that the mean stays. (B, ...) -> (B, ...); the identity in evaluation.

    Args:
        rate: chance of a sample to lose the branch, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f'drop_path_rate: {rate} is outside [0, 1); the published networks have 0.1')
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= self.rate
        return x * (keep.to(x.dtype) / (1 - self.rate))


def init_linear_layers(net: nn.Module) -> None:
    """Draw linear weights from a truncated normal distribution, set their biases to 0, and leave other layers alone."""
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=INIT_STD)
            nn.init.zeros_(module.bias)


def named_sequential(name: str, *modules: nn.Module) -> nn.Sequential:
    """Modules one after the other whose parameters are called ``<name>.0...``, ``<name>.1...``, as published."""
    return nn.Sequential(OrderedDict({name: nn.Sequential(*modules)}))
