"""IDT: image de-raining Transformer (IEEE TPAMI 45(11), pages 12978-12995, 2023).

Written from the paper's and the release's description (https://github.com/jiexiaou/IDT), with the ways of the release
that its weights were trained with; published weights load as they are.

Shapes: B batch, C channels of a stage, n windows of M x M pixels; in an attention N = w * w tokens of d channels,
h heads.
"""

from __future__ import annotations

from collections.abc import Sequence

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

WINDOW = 8  # side M
SPATIAL_REACH = (16, 8, 4, 2)  # distances between windows that the bias tables of encoder 0 to 3 tell apart
SPATIAL_HIDDEN = 4 * WINDOW**2  # inside the LeFF of a spatial block, whatever its channels


class PositionAttention(nn.Module):
    """Self-attention with a convolutional branch for position, (B, N, d) -> (B, N, d).

        out = (softmax(q k^T / sqrt(d / h) + bias) v + P(u)) W
        P(u) = grouped conv1x1(depth-wise conv(u)), with u as a map of w x w tokens

    Args:
        dim: d.
        heads: h.
        side: w, tokens along a side.
        reach: distances up to reach - 1 have biases of their own.
    """

    relative_position_index: Tensor

    def __init__(self, dim: int, heads: int, side: int, reach: int) -> None:
        super().__init__()
        self.heads = heads
        self.side = side
        kernel = 2 * min(side - 1, 2) + 1  # no larger than what the tokens reach
        self.relative_position_bias_table = new_bias_table(reach, heads)
        self.register_buffer('relative_position_index', relative_position_index(side, reach), persistent=False)
        self.qkv = LinearProjection(dim, others=3)
        # capitals: the published name
        self.Position_Extract = nn.Sequential(
            nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim), nn.Conv2d(dim, dim, 1, groups=heads)
        )
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v, u = self.qkv(x)
        q, k, v = (split_heads(t, self.heads) for t in (q, k, v))  # (B, h, N, d / h)
        bias = position_bias(self.relative_position_bias_table, self.relative_position_index)  # (1, h, N, N)
        out = attend(q, k, v, bias)  # (B, N, d)
        u = u.unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)  # (B, d, w, w)
        position = self.Position_Extract(u).permute(0, 2, 3, 1).flatten(1, 2)  # (B, N, d)
        return self.proj(out + position)


class WindowBlock(nn.Module):
    """Attention between the pixels of each window, (B, H, W, C) -> (B, H, W, C). Windows are never shifted.

    X' = X + Attention(windows of LN(X));  X = X' + LeFF(LN(X'))

    Args:
        dim: channels C.
        heads: h.
        window: side M.
        drop_path: rate of stochastic depth.
    """

    def __init__(self, dim: int, heads: int, window: int, drop_path: float) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(dim)
        self.attn = PositionAttention(dim, heads, window, reach=WINDOW)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = LeFF(dim, 4 * dim, residual=True)
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        windows = to_windows(self.norm1(precision.full_precision(x)), self.window)  # (B, n, N, C)
        windows = self.attn(windows.flatten(0, 1)).unflatten(0, (batch, -1))
        x = x + self.drop_path(from_windows(windows, height, width))
        return x + self.drop_path(self.mlp(self.norm2(precision.full_precision(x))))


class SpatialBlock(nn.Module):
    """Attention between the windows of each channel, (B, H, W, C) -> (B, H, W, C).

    A channel is a sequence of its own: its tokens are the windows, a token's features the pixels of the window.
    There is no norm before, and the result, which stands window after window, is added to the pixels as they stand
    row after row: pixel p of the map receives pixel p % 64 of window p // 64. The published weights are trained so.

    Args:
        dim: channels C.
        heads: h; divides the 64 pixels of a window.
        side: windows along a side of the map.
        reach: see PositionAttention.
        drop_path: rate of stochastic depth.
    """

    def __init__(self, dim: int, heads: int, side: int, reach: int, drop_path: float) -> None:
        super().__init__()
        if WINDOW**2 % heads:
            raise ValueError(f'num_heads: {heads} does not divide the {WINDOW**2} pixels of a window; take 1, 2, 4 ...')
        self.attn = PositionAttention(WINDOW**2, heads, side, reach)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = LeFF(dim, SPATIAL_HIDDEN, residual=True)
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        tokens = to_windows(x, WINDOW).permute(0, 3, 1, 2)  # (B, C, n, 64)
        out = self.attn(tokens.flatten(0, 1)).unflatten(0, (batch, -1))  # (B, C, n, 64)
        out = out.flatten(2).transpose(1, 2).reshape(x.shape)  # not folded back, see above
        x = x + self.drop_path(out)
        return x + self.drop_path(self.mlp(self.norm2(precision.full_precision(x))))


@register(ARCH_REGISTRY)
class IDT(UShape):
    """IDT: each stage of a U-shape has window blocks and ends, but for the bottleneck, with a spatial block.

    Stochastic depth has the rates of the release: ``depths`` numbers for a stage, the window blocks all take the
    first, the spatial block the last.

    Args:
        img_size: side of the square images, the only size that the network takes; 64 or a multiple of 128. Weights
            fit one size: the convolutions of the position branch are smaller where a map has few windows.
        embed_dim: channels at full resolution.
        depths: window blocks of encoder 0 to 3, bottleneck, decoder 0 to 3.
        num_heads: attention heads of the same nine, in the window blocks and in the spatial block.
        drop_path_rate: largest rate of stochastic depth.

    Shape: (B, 3, img_size, img_size) in [0, 1] -> the same; not clamped.
    """

    size_multiple = fixed_size = 128  # of the published network; ``img_size`` of another
    block_types = (WindowBlock, SpatialBlock)

    def __init__(
        self,
        img_size: int = 128,
        embed_dim: int = 32,
        depths: Sequence[int] = (3, 3, 2, 2, 1, 1, 2, 2, 3),
        num_heads: Sequence[int] = (1, 2, 4, 8, 16, 16, 8, 4, 2),
        drop_path_rate: float = 0.1,
    ) -> None:
        if img_size != 64 and (img_size < 1 or img_size % 128):
            raise ValueError(f'img_size: {img_size} does not divide into windows at every stage; try 128, or 64')
        sizes, widths = stage_sizes(img_size), stage_widths(embed_dim)
        rates = stage_drop_rates(depths, drop_path_rate)
        check_heads(num_heads, widths)

        def stage(index: int) -> Sequence[nn.Module]:
            size, width, heads = sizes[index], widths[index], num_heads[index]
            first, last = rates[index][0], rates[index][-1]
            blocks = [WindowBlock(width, heads, min(WINDOW, size), first) for _ in rates[index]]
            if index == LEVELS:
                return blocks
            reach = SPATIAL_REACH[min(index, STAGES - 1 - index)]  # the decoder mirrors the encoder
            return [*blocks, SpatialBlock(width, heads, size // WINDOW, reach, last)]

        super().__init__(embed_dim, [stage(i) for i in range(STAGES)], bottleneck='bottle')
        self.fixed_size = self.size_multiple = img_size

    def forward(self, rain: Tensor) -> Tensor:
        if rain.shape[-2:] != (self.fixed_size, self.fixed_size):
            height, width = rain.shape[-2:]
            raise ValueError(f'IDT takes {self.fixed_size} x {self.fixed_size}, not {height} x {width}; cut into tiles')
        return super().forward(rain)
