"""Inference strip by strip: the numbers of the whole image, in little memory, and with fewer passes over features.

What a block of the family does is local, but for the attention, which needs two sums over all pixels: they are gathered
strip by strip, and then applied strip by strip. A strip has as many rows more on each side as the convolutions see
beyond it (the halo). What a block gives goes into its input's own memory, whose old rows no later strip reads. Beside
that one tensor a block thus needs the features of a strip, and the values of the attention where they are small.

An image that is no larger than a strip is one strip: it has no halo, and nothing is computed twice.

Shapes: (B, C, H, W); in strips B = 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ddsa_arch.archs.blocks.attention_core import ChannelAttention, ScoreSum, fold_projection
from ddsa_arch.archs.blocks.feedforward import FeedForward
from ddsa_arch.archs.blocks.fused import conv_add_
from ddsa_arch.archs.blocks.plain_form import is_plain

# by kind of device; 128 channels of float32 stay below 32 MiB, which the C library can keep for the next strip
STRIP_PIXELS = {'cpu': 60_000}
OTHER_STRIP_PIXELS = 2**20
KEPT_VALUES = 2**28  # bytes; larger values of an attention are computed twice instead of kept
EVEN = 2  # rows of a strip are a multiple of it, as some layers halve the resolution
LEAST_ROWS = 4  # a spatial attention sees 3 rows beyond a strip, and waits for the next strip alone


class _Choice:
    whole = False
    pixels: int | None = None
    kept = KEPT_VALUES


@contextlib.contextmanager
def whole_image() -> Iterator[None]:
    """Run networks on whole images within the block, by the same code as in training."""
    before, _Choice.whole = _Choice.whole, True
    try:
        yield
    finally:
        _Choice.whole = before


@contextlib.contextmanager
def strips_of(pixels: int, kept: int = KEPT_VALUES) -> Iterator[None]:
    """Run networks in strips of another size within the block.

    Args:
        pixels: of a strip, more or less; at least ``LEAST_ROWS`` rows are taken.
        kept: bytes up to which the values of an attention are kept.
    """
    before = _Choice.pixels, _Choice.kept
    _Choice.pixels, _Choice.kept = pixels, kept
    try:
        yield
    finally:
        _Choice.pixels, _Choice.kept = before


def in_strips() -> bool:
    """Whether networks run strip by strip now: in inference, unless a compiler or tracer looks at the whole."""
    return not (
        torch.is_grad_enabled()
        or _Choice.whole
        or is_plain()
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()
    )


@dataclass(frozen=True)
class Strip:
    """Rows of an image with their halo, (1, C, h, W), and which rows they are without the halo."""

    x: Tensor
    rows: slice
    top: int  # of the halo, in rows of x

    def crop(self, x: Tensor) -> Tensor:
        """Without the halo."""
        return x[:, :, self.top : self.top + self.rows.stop - self.rows.start]

    def of(self, image: Tensor) -> Tensor:
        """The same rows, without the halo, of another tensor of the image."""
        return image[:, :, self.rows]


def strip_rows(x: Tensor) -> list[slice]:
    """The rows of each strip, (.., H, W) in parts of one even number of rows, the last perhaps smaller."""
    height, width = x.shape[-2:]
    pixels = _Choice.pixels or STRIP_PIXELS.get(x.device.type, OTHER_STRIP_PIXELS)
    count = max(1, -(-height * width // pixels))
    step = max(LEAST_ROWS, -(-height // count))
    step += -step % EVEN
    return [slice(start, min(start + step, height)) for start in range(0, height, step)]


def strips(x: Tensor, halo: int, prepare: Callable[[Tensor], Tensor] = lambda x: x) -> Iterator[Strip]:
    """The strips of an image (1, C, H, W); the rows that were given may be overwritten.

    Args:
        halo: rows that are needed beyond each side.
        prepare: acts on each pixel, such as a norm; once for each row.
    """
    height = x.shape[2]
    prepared, first = x[:, :, :0], 0  # of the rows from `first` on
    for rows in strip_rows(x):
        start, ahead = max(0, rows.start - halo), min(rows.stop + halo, height)
        new = prepare(x[:, :, first + prepared.shape[2] : ahead])
        kept = prepared[:, :, start - first :]
        prepared, first = torch.cat([kept, new], dim=2) if kept.shape[2] else new, start
        yield Strip(prepared, rows, rows.start - start)


def layout(x: Tensor) -> torch.memory_format:
    """How features lie in memory: channels_last, but for float64, which oneDNN does not take and is slow that way."""
    return torch.contiguous_format if x.dtype == torch.float64 else torch.channels_last


def run_block(block: nn.Module, x: Tensor) -> Tensor:
    """A block alone, (B, C, H, W) -> the same; x stays as it is."""
    return update(x.clone(memory_format=layout(x)), block)


def run_blocks(blocks: nn.Sequential, x: Tensor) -> Tensor:
    """All blocks one after the other, (B, C, H, W) -> the same; x may be overwritten.

    A block has ``norm1``, ``norm2`` and ``branches``, its attention and its feed-forward network.
    """
    if not in_strips():
        return blocks(x)
    for block in blocks:
        x = update(x, block)
    return x


def update(x: Tensor, block: nn.Module) -> Tensor:
    """x' = x + attention(norm1(x)); x' + ffn(norm2(x')), written into x, unless that has another layout."""
    if layout(x) is torch.channels_last and x.stride(1) != 1:
        x = x.contiguous(memory_format=torch.channels_last)
    attention, feed_forward = block.branches
    for image in x.split(1):
        _attend(image, block.norm1, attention)
        _feed(image, block.norm2, feed_forward)
    return x


def _attend(x: Tensor, norm: nn.Module, attention: ChannelAttention) -> None:
    """x += attention(norm(x)): once through the image for the scores, once for what they weigh."""
    scores = ScoreSum(attention.heads, attention.temperature)
    keep = x.numel() * x.element_size() <= _Choice.kept
    values: Iterable[tuple[slice, Tensor]] = []  # of which rows
    for strip in strips(x, attention.halo, norm):
        q, k, *v = (strip.crop(part) for part in attention.encode(strip.x, ('q', 'k', 'v') if keep else ('q', 'k')))
        scores.add(q, k)
        values += [(strip.rows, v) for v in v]
    matrix = fold_projection(attention.attention_map(scores.scores()), attention.project_out)  # (1, O, C)
    weight, bias = matrix[0, :, :, None, None], attention.project_out.bias
    if not keep:
        again = strips(x, attention.halo, norm)
        values = ((strip.rows, strip.crop(*attention.encode(strip.x, 'v'))) for strip in again)
    for rows, v in values:
        conv_add_(x[:, :, rows], v, weight.to(v.dtype), bias)


def _feed(x: Tensor, norm: nn.Module, feed_forward: FeedForward) -> None:
    """x += feed_forward(norm(x)). A spatial attention sees rows beyond a strip: it waits for the next strip."""
    pooled, waiting = None, None
    for strip in strips(x, feed_forward.halo, norm):
        p, looked_at = feed_forward.strip(strip.x, strip.crop, strip.of(x))
        if looked_at is None:
            continue
        if pooled is None:
            pooled = looked_at.new_empty(1, looked_at.shape[1], *x.shape[2:])
        strip.of(pooled).copy_(looked_at)
        if waiting:
            _weigh(x, *waiting, pooled, feed_forward)
        waiting = strip.rows, p
    if waiting:
        _weigh(x, *waiting, pooled, feed_forward)


def _weigh(x: Tensor, rows: slice, p: Tensor, pooled: Tensor, feed_forward: FeedForward) -> None:
    """Add what has waited for the rows around it."""
    attention = feed_forward.spatial_attention
    start = max(0, rows.start - attention.halo)
    weights = attention.from_pooled(pooled[:, :, start : rows.stop + attention.halo])
    feed_forward.finish(p, weights[:, :, rows.start - start : rows.stop - start], x[:, :, rows])


# --- between the blocks ------------------------------------------------------------------------------------


def through(
    layer: Callable[[Tensor], Tensor],
    x: Tensor,
    halo: int,
    out: Tensor | None = None,
    combine: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """layer(x), strip by strip. The layer may halve or double the resolution.

    Args:
        layer: sees ``halo`` pixels around each.
        x: ``(B, C, H, W)``.
        halo: even, for a layer that halves the resolution.
        out: gets the result, of its shape.
        combine: makes what goes into a strip of ``out`` from the layer's and what is there.
    """
    if not in_strips():
        return layer(x)
    height, width = x.shape[2:]
    for index in range(len(x)):
        image = x[index : index + 1]
        for rows in strip_rows(x):
            start = max(0, rows.start - halo)
            y = layer(image[:, :, start : rows.stop + halo])
            across = y.shape[3]
            first, last, begin = (row * across // width for row in (rows.start, rows.stop, start))
            y = y[:, :, first - begin : last - begin]
            if out is None:
                size = (len(x), y.shape[1], height * across // width, across)
                out = torch.empty(size, dtype=y.dtype, device=y.device, memory_format=layout(y))
            place = out[index : index + 1, :, first:last]
            place.copy_(combine(y, place) if combine else y)
    return out


def embed(layer: nn.Module, x: Tensor, channels: int) -> tuple[Tensor | None, Tensor]:
    """layer(x), with the room for what ``join`` puts before it.

    Args:
        layer: sees 1 pixel around each.
        x: ``(B, C, H, W)``.
        channels: of layer(x).

    Returns:
        A tensor of twice as many channels, and layer(x) as the second half of it. Without strips None, and
        layer(x) alone.
    """
    if not in_strips():
        return None, layer(x)
    dtype = layer(x[:, :, :1]).dtype  # autocast may give another than that of x
    room = _room(x, channels, dtype)
    through(layer, x, 1, room[:, channels:])
    return room, room[:, channels:]


def with_room(x: Tensor) -> tuple[Tensor | None, Tensor]:
    """See ``embed``, for features that are there already."""
    if not in_strips():
        return None, x
    room = _room(x, x.shape[1], x.dtype)
    room[:, x.shape[1] :] = x
    return room, room[:, x.shape[1] :]


def _room(x: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """(B, 2 channels, H, W), not filled."""
    size = (len(x), channels * 2, *x.shape[2:])
    return torch.empty(size, dtype=dtype, device=x.device, memory_format=layout(x))


def join(layer: nn.Module, x: Tensor, skip: Tensor, room: Tensor | None) -> Tensor:
    """[layer(x), skip], (B, C, h, w) and (B, C', H, W) -> (B, 2C', H, W), for a layer that sees 1 pixel around each."""
    if room is None:
        return torch.cat([layer(x), skip], dim=1)
    through(layer, x, 1, room[:, : skip.shape[1]])
    return room


def fuse(project: nn.Conv2d, layer: nn.Module, x: Tensor, skip: Tensor) -> Tensor:
    """project([layer(x), skip]), a 1x1 convolution to as many channels as skip has, which may be overwritten."""

    def combine(y: Tensor, skip: Tensor) -> Tensor:
        return project(torch.cat([y, skip], dim=1))

    return through(layer, x, 1, skip, combine) if in_strips() else combine(layer(x), skip)
