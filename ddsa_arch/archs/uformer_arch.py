"""Uformer: a general U-shaped Transformer for image restoration (https://arxiv.org/abs/2106.03106).

Written from the paper's and the release's description of July 2022; published weights load as they are. The outputs
of Uformer-B alone have been checked against those of the release.

Shapes: B batch, C channels of a stage, M side of a window, n windows, N = M * M tokens of one, h heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ddsa_arch.archs.blocks import precision
from ddsa_arch.archs.blocks.u_shape import (
    LEVELS,
    STAGES,
    UShape,
    check_heads,
    stage_drop_rates,
    stage_sizes,
    stage_widths,
)
from ddsa_arch.archs.blocks.window_attention import (
    LeFF,
    LinearProjection,
    StochasticDepth,
    attend,
    from_windows,
    new_bias_table,
    position_bias,
    relative_position_index,
    split_heads,
    to_windows,
)
from ddsa_arch.registration import register

MASKED = -100.0  # added to the score of two pixels that the cyclic shift alone made neighbours


def shift_mask(height: int, width: int, size: int, shift: int, device: torch.device) -> Tensor:
    """Return the mask for the scores of a map that was shifted cyclically, (n, 1, N, N), which is added to them.

    The last ``shift`` rows and columns came from the other side and do not belong to the rest of their windows.
    """
    rows = torch.arange(height, device=device) >= height - shift
    columns = torch.arange(width, device=device) >= width - shift
    regions = 2 * rows[:, None] + columns  # (H, W), 0 to 3
    regions = to_windows(regions[None, ..., None], size)[0, ..., 0]  # (n, N)
    return ((regions[:, :, None] != regions[:, None, :]) * MASKED)[:, None]


class WindowAttention(nn.Module):
    """W-MSA: multi-head self-attention in each window (section 3.2), (B, n, N, C) -> (B, n, N, C).

    softmax(Q K^T / sqrt(d) + B) V with the relative position bias B.

    Args:
        dim: channels C.
        heads: h.
        window: side M.
    """

    relative_position_index: Tensor

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = new_bias_table(window, heads)
        self.register_buffer('relative_position_index', relative_position_index(window))
        self.qkv = LinearProjection(dim, others=2)
        self.proj = nn.Linear(dim, dim)

    def forward(self, windows: Tensor, mask: Tensor | None = None) -> Tensor:
        """Args: windows (B, n, N, C); mask (n, 1, N, N), added to the scores."""
        q, k, v = (split_heads(t.flatten(0, 1), self.heads) for t in self.qkv(windows))  # (B n, h, N, d)
        bias = position_bias(self.relative_position_bias_table, self.relative_position_index)  # (1, h, N, N)
        if mask is not None:
            bias = (bias + mask).expand(windows.shape[0], -1, -1, -1, -1).flatten(0, 1)  # (B n, h, N, N)
        return self.proj(attend(q, k, v, bias)).view_as(windows)


class LeWinBlock(nn.Module):
    """LeWin Transformer block (section 3.2), (B, H, W, C) -> (B, H, W, C).

    X' = X + W-MSA(LN(X) + modulator)
    X = X' + LeFF(LN(X'))

    Args:
        dim: channels C.
        heads: h.
        window: side M of the windows that H and W are multiples of.
        shift: pixels by which the map is shifted cyclically before it is cut into windows.
        hidden: channels inside LeFF.
        modulator: True learns a vector for each place in a window, added in all windows alike (section 3.3).
        drop_path: rate of stochastic depth.
    """

    def __init__(
        self, dim: int, heads: int, window: int, shift: int, hidden: int, modulator: bool, drop_path: float
    ) -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.modulator = nn.Embedding(window * window, dim) if modulator else None
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = LeFF(dim, hidden)
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attend_in_windows(self.norm1(precision.full_precision(x))))
        return x + self.drop_path(self.mlp(self.norm2(precision.full_precision(x))))

    def attend_in_windows(self, x: Tensor) -> Tensor:
        """(S)W-MSA of a map, (B, H, W, C) -> (B, H, W, C)."""
        height, width = x.shape[1:3]
        mask = None
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
            mask = shift_mask(height, width, self.window, self.shift, x.device)
        windows = to_windows(x, self.window)  # (B, n, N, C)
        if self.modulator is not None:
            windows = windows + self.modulator.weight
        x = from_windows(self.attn(windows, mask), height, width)
        return x.roll((self.shift, self.shift), dims=(1, 2)) if self.shift else x


@register(ARCH_REGISTRY)
class Uformer(UShape):
    """Uformer: LeWin blocks in a U-shape that predicts what to add to the image (section 3.1).

    Every second block of a stage shifts its windows by half their side. The defaults are Uformer-B, 50.88 M
    parameters. Uformer-S has ``depths`` of 2 throughout, Uformer-T as well and ``embed_dim`` 16; the paper's numbers
    of their parameters, 20.63 M and 5.23 M, are those without the modulator (with it 20.75 M and 5.29 M).

    Args:
        img_size: side of the square images that the network is built for. It takes others as well, but where a
            stage's maps are no larger than a window at this size, its blocks never shift (and their windows are that
            small). So 256 shifts the bottleneck's second block and 128 does not, with the same weights.
        embed_dim: channels at full resolution.
        depths: blocks of encoder 0 to 3, bottleneck, decoder 0 to 3.
        num_heads: attention heads of the same nine.
        win_size: side of a window.
        mlp_ratio: channels inside LeFF over those outside.
        modulator: whether the blocks of the decoder have a modulator.
        drop_path_rate: largest rate of stochastic depth.

    Shape: (B, 3, H, W) in [0, 1] -> the same; H and W multiples of ``size_multiple``; not clamped.
    """

    size_multiple = 128  # four down-samplings, then windows of 8; less for a small img_size or win_size
    block_types = (LeWinBlock,)

    def __init__(
        self,
        img_size: int = 128,
        embed_dim: int = 32,
        depths: Sequence[int] = (1, 2, 8, 8, 2, 8, 8, 2, 1),
        num_heads: Sequence[int] = (1, 2, 4, 8, 16, 16, 8, 4, 2),
        win_size: int = 8,
        mlp_ratio: float = 4.0,
        modulator: bool = True,
        drop_path_rate: float = 0.1,
    ) -> None:
        if img_size < 2**LEVELS or img_size % 2**LEVELS:
            up = max(1, math.ceil(img_size / 2**LEVELS)) * 2**LEVELS
            raise ValueError(f'img_size: {img_size} is not a multiple of {2**LEVELS}; try {up}')
        if win_size < 1:
            raise ValueError(f'win_size: {win_size} is not a side of a window; the published networks have 8')
        if int(embed_dim * mlp_ratio) < 1:
            raise ValueError(f'mlp_ratio: {mlp_ratio} leaves LeFF no channels; the published networks have 4')
        sizes, widths = stage_sizes(img_size), stage_widths(embed_dim)
        rates = stage_drop_rates(depths, drop_path_rate)
        check_heads(num_heads, widths)

        def stage(index: int) -> list[LeWinBlock]:
            size, width, in_decoder = sizes[index], widths[index], index > LEVELS
            window, shift = (win_size, win_size // 2) if size > win_size else (size, 0)
            return [
                LeWinBlock(
                    width, num_heads[index], window, shift if block % 2 else 0,
                    int(width * mlp_ratio), modulator and in_decoder, rate,
                )
                for block, rate in enumerate(rates[index])
            ]  # fmt: skip

        super().__init__(embed_dim, [stage(i) for i in range(STAGES)], bottleneck='conv')
        self.size_multiple = math.lcm(*(min(win_size, size) * img_size // size for size in sizes))
