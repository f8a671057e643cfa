"""Inference strip by strip: the numbers of the whole image, in little memory, and with fewer passes over features.

What a block of the family does is local, but for the attention, which needs two sums over all pixels: they are gathered
strip by strip, and then applied strip by strip. A strip has as many rows more on each side as the convolutions see
beyond it (the halo). What a block gives goes into its input's own memory, whose old rows no later strip reads. Beside
that one tensor a block thus needs the features of a strip, and the values of the attention where they are small.

An image that is no larger than a strip is one strip: it has no halo, and nothing is computed twice.

Shapes: (B, C, H, W); in strips B = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ddsa_arch.archs.blocks import resample
from ddsa_arch.fast.eligible import conv_obstacle, is_touched
from ddsa_arch.fast.memory_format import layout
from ddsa_arch.fast.progress import tell

# by kind of device; 128 channels of float32 stay below 32 MiB, which the C library can keep for the next strip
STRIP_PIXELS = {'cpu': 60_000}
OTHER_STRIP_PIXELS = 2**20
KEPT_VALUES = 2**28  # bytes
EVEN = 2  # rows of a strip are a multiple of it, as some layers halve the resolution
LEAST_ROWS = 4  # a spatial attention sees 3 rows beyond a strip, and waits for the next strip alone


@dataclass(frozen=True)
class StripPlan:
    """The size of strips.

    Args:
        pixels: of a strip, more or less; at least ``LEAST_ROWS`` rows are taken. None takes what suits the device.
        kept: bytes up to which the values of an attention are kept; larger ones are computed twice.
    """

    pixels: int | None = None
    kept: int = KEPT_VALUES

    def rows(self, x: Tensor) -> list[slice]:
        """Return the rows of each strip of (.., H, W): one even number of rows each, the last perhaps fewer."""
        height, width = x.shape[-2:]
        pixels = self.pixels or STRIP_PIXELS.get(x.device.type, OTHER_STRIP_PIXELS)
        count = max(1, -(-height * width // pixels))
        step = max(LEAST_ROWS, -(-height // count))
        step += -step % EVEN
        return [slice(start, min(start + step, height)) for start in range(0, height, step)]


DEFAULT = StripPlan()
PLAN = 'plan'  # attribute of a module that has a plan of its own


def plan_of(module: nn.Module) -> StripPlan:
    """Return how large the strips of a module are; another thread may take its fast form and its plan at any moment."""
    return module.__dict__.get(PLAN, DEFAULT)


@dataclass(frozen=True)
class Strip:
    """Rows of an image with their halo, (1, C, h, W), and which rows they are without the halo."""

    x: Tensor
    rows: slice
    top: int  # of the halo, in rows of x

    def crop(self, x: Tensor) -> Tensor:
        """Return features of the strip without its halo."""
        return x[:, :, self.top : self.top + self.rows.stop - self.rows.start]

    def of(self, image: Tensor) -> Tensor:
        """Return the same rows, without the halo, of another tensor of the image."""
        return image[:, :, self.rows]


def strips(x: Tensor, halo: int, plan: StripPlan, prepare: Callable[[Tensor], Tensor] = lambda x: x) -> Iterator[Strip]:
    """The strips of an image (1, C, H, W); the rows that were given may be overwritten.

    Args:
        x: the image.
        halo: rows that are needed beyond each side.
        plan: how large they are.
        prepare: acts on each pixel, such as a norm; once for each row.
    """
    height = x.shape[2]
    prepared, first = x[:, :, :0], 0  # of the rows from `first` on
    for rows in plan.rows(x):
        start, ahead = max(0, rows.start - halo), min(rows.stop + halo, height)
        new = prepare(x[:, :, first + prepared.shape[2] : ahead])
        kept = prepared[:, :, start - first :]
        prepared, first = torch.cat([kept, new], dim=2) if kept.shape[2] else new, start
        yield Strip(prepared, rows, rows.start - start)
        tell((rows.stop - rows.start) * x.shape[1] * x.shape[3])


# --- between the blocks ------------------------------------------------------------------------------------


def is_local(layer: nn.Module) -> bool:
    """Whether a layer is one that may run strip by strip: convolutions and pixel-shuffles as they were built."""
    if is_touched(layer):
        return False
    if type(layer) in (nn.Sequential, resample.Downsample, resample.Upsample):
        return all(is_local(child) for child in layer.children())
    if type(layer) in (nn.PixelShuffle, nn.PixelUnshuffle):
        return True
    return not (conv_obstacle(layer, '', 3) and conv_obstacle(layer, '', 1))


def through(
    layer: nn.Module,
    x: Tensor,
    halo: int,
    plan: StripPlan,
    out: Tensor | None = None,
    combine: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Run layer(x), strip by strip where the layer allows it. It may halve or double the resolution.

    Args:
        layer: sees at most ``halo`` pixels around each.
        x: ``(B, C, H, W)``.
        halo: even, for a layer that halves the resolution.
        plan: of strips of x.
        out: gets the result, of its shape.
        combine: makes what goes into a strip of ``out`` from the layer's and what is there.
    """
    if not is_local(layer):
        y = layer(x)
        if out is None:
            return y
        return out.copy_(combine(y, out) if combine else y)
    height, width = x.shape[2:]
    for index in range(len(x)):
        image = x[index : index + 1]
        for rows in plan.rows(x):
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
            tell(y.numel())
    assert out is not None  # as there are images
    return out


def embed(layer: nn.Module, x: Tensor, plan: StripPlan) -> tuple[Tensor, Tensor]:
    """Run layer(x), and leave room before its channels for those that ``join`` puts there.

    Args:
        layer: sees 1 pixel around each.
        x: ``(B, C, H, W)``.
        plan: of strips.

    Returns:
        A tensor of twice as many channels, and layer(x) as the second half of it.
    """
    if not is_local(layer):
        return with_room(layer(x))
    row = layer(x[:, :, :1])  # autocast may give another type than that of x
    room = _room(x, row.shape[1], row.dtype)
    features = room[:, row.shape[1] :]
    return room, through(layer, x, 1, plan, features)


def with_room(x: Tensor) -> tuple[Tensor, Tensor]:
    """Do what ``embed`` does, for features that are there already."""
    room = _room(x, x.shape[1], x.dtype)
    room[:, x.shape[1] :] = x
    return room, room[:, x.shape[1] :]


def _room(x: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """Allocate (B, 2 channels, H, W), not filled."""
    size = (len(x), channels * 2, *x.shape[2:])
    return torch.empty(size, dtype=dtype, device=x.device, memory_format=layout(x))


def join(layer: nn.Module, x: Tensor, skip: Tensor, room: Tensor, plan: StripPlan) -> Tensor:
    """Join [layer(x), skip], (B, C, h, w) and (B, C', H, W) -> (B, 2C', H, W); the layer sees 1 pixel around each."""
    through(layer, x, 1, plan, room[:, : skip.shape[1]])
    return room


def fuse(project: nn.Module, layer: nn.Module, x: Tensor, skip: Tensor, plan: StripPlan) -> Tensor:
    """Compute project([layer(x), skip]), a 1x1 convolution to the channels of skip, which may be overwritten."""

    def combine(y: Tensor, skip: Tensor) -> Tensor:
        return project(torch.cat([y, skip], dim=1))

    if conv_obstacle(project, '', 1):
        return combine(layer(x), skip)
    return through(layer, x, 1, plan, skip, combine)
