"""Run a restoration network on images of any size, by the recipe that a test file names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ddsa_arch.errors import InputError
from ddsa_arch.ops.padding import crop_to, pad_square, pad_to, pad_to_multiple
from ddsa_arch.ops.tiling import process_tiles


@dataclass(frozen=True)
class Recipe:
    """The way of an image through a network and back to 8 bits, as the section ``val.restore`` gives it.

    The defaults are the plain way. The published test scripts of some networks differ, and so do their scores.

    Args:
        size_multiple: of H and W that the network takes; absent, what the network says of itself.
        pad: ``reflect`` extends the bottom and the right by reflection; ``square`` puts the image into the middle of a
            black square (Uformer).
        tile_size: side of the tiles in pixels; absent, the whole image, unless the network takes one size alone.
        tile_overlap: pixels that neighbouring tiles share.
        tile_weight: how tiles are averaged where they overlap, see ``ops.tiling.tile_weight``; IDT has ``centre``, and
            NeRD-Rain ``first``.
        batch_statistics: batch norm takes the statistics of the image itself (UMRL, DID-MDN).
        cycle_spin: pixels between the cyclic shifts over whose outputs the mean is taken (UMRL: 50); absent, none.
        output_range: ``clamp`` to [0, 1], or ``stretch`` each image from its smallest to its largest value (UMRL).
        rounding: to 8 bits: ``round``, or ``truncate`` as several scripts do.
    """

    size_multiple: int | None = None
    pad: str = 'reflect'
    tile_size: int | None = None
    tile_overlap: int = 20
    tile_weight: str = 'uniform'
    batch_statistics: bool = False
    cycle_spin: int | None = None
    output_range: str = 'clamp'
    rounding: str = 'round'

    def check(self, net: nn.Module) -> None:
        """
        Raises:
            InputError: tiles of a size that the network does not take, or that are no larger than their overlap.
        """
        tile = getattr(net, 'fixed_size', None) or self.tile_size
        multiple = self.multiple(net)
        if tile and tile % multiple:
            raise InputError(
                f'val.restore.tile_size: {tile} is not a multiple of {multiple}, which the network needs; '
                f'try {tile + -tile % multiple}'
            )
        if tile and self.tile_overlap >= tile:
            raise InputError(
                f'val.restore.tile_overlap: {self.tile_overlap} is not below the side of a tile, {tile}; '
                f'try {tile // 8}'
            )

    def multiple(self, net: nn.Module) -> int:
        """Return the number of which H and W must be multiples for a network."""
        of_net: int = getattr(net, 'size_multiple', 1)
        return self.size_multiple or of_net


PLAIN = Recipe()


def final_output(outputs: Tensor | Sequence[Tensor]) -> Tensor:
    """Return the final image of a network; of several images this is the last one."""
    return outputs if isinstance(outputs, Tensor) else outputs[-1]


@torch.inference_mode()
def restore(net: nn.Module, rain: Tensor, recipe: Recipe = PLAIN) -> Tensor:
    """Derain an image. This is the one place where images are padded, tiled or shifted for a network.

    Args:
        net: takes H and W that are multiples of its ``size_multiple`` (1 if it has none), or ``fixed_size`` alone.
            Its mode is kept.
        rain: ``(B, 3, H, W)`` in [0, 1], H and W from 1 up.
        recipe: how.

    Returns:
        ``(B, 3, H, W)``, not clamped; in [0, 1] where the recipe stretches.

    Raises:
        InputError: see ``Recipe.check``.
    """
    recipe.check(net)
    training = net.training
    net.eval()
    try:
        with _batch_statistics(net) if recipe.batch_statistics else contextlib.nullcontext():
            run = _shifted if recipe.cycle_spin else _restored
            if recipe.batch_statistics:  # of one image, whoever stands beside it
                return torch.cat([run(net, image[None], recipe) for image in rain])
            return run(net, rain, recipe)
    finally:
        net.train(training)


def _shifted(net: nn.Module, rain: Tensor, recipe: Recipe) -> Tensor:
    """Run the network on cyclic shifts of the image and return the mean."""
    (height, width), step = rain.shape[-2:], recipe.cycle_spin or max(rain.shape[-2:])
    shifts = [(rows, columns) for rows in range(0, height, step) for columns in range(0, width, step)]
    total = torch.zeros_like(rain)
    for rows, columns in shifts:
        total += _restored(net, rain.roll((rows, columns), (-2, -1)), recipe).roll((-rows, -columns), (-2, -1))
    mean = total / len(shifts)
    return stretch(mean) if recipe.output_range == 'stretch' else mean


def _restored(net: nn.Module, rain: Tensor, recipe: Recipe) -> Tensor:
    height, width = rain.shape[-2:]
    fixed = getattr(net, 'fixed_size', None)
    tile = fixed or recipe.tile_size
    multiple = recipe.multiple(net)
    if recipe.pad == 'square' and not tile:
        padded, top, left = pad_square(rain, multiple)
        out = crop_to(final_output(net(padded)), height, width, top, left)
    elif tile:
        padded = pad_to(rain, tile, tile)
        out = process_tiles(lambda x: final_output(net(x)), padded, tile, recipe.tile_overlap, recipe.tile_weight)
        out = crop_to(out, height, width)
    else:
        out = crop_to(final_output(net(pad_to_multiple(rain, multiple))), height, width)
    return stretch(out) if recipe.output_range == 'stretch' else out


@contextlib.contextmanager
def _batch_statistics(net: nn.Module) -> Iterator[None]:
    """Let batch norm in evaluation mode take the statistics of the batch, for the time of the block."""
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    kept = [(norm.running_mean, norm.running_var) for norm in norms]
    try:
        for norm in norms:
            norm.running_mean = norm.running_var = None
        yield
    finally:
        for norm, (mean, variance) in zip(norms, kept, strict=True):
            norm.running_mean, norm.running_var = mean, variance


def stretch(x: Tensor) -> Tensor:
    """Stretch the values of each image of ``(B, C, H, W)`` to [0, 1]; an image of a single value becomes 0."""
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return (x - low) / (high - low).clamp_min(torch.finfo(x.dtype).tiny)


def to_uint8(image: Tensor, rounding: str = 'round') -> np.ndarray:
    """Turn a network's output into a picture.

    Args:
        image: ``(3, H, W)`` or ``(1, 3, H, W)`` RGB, clamped to [0, 1] here; NaN becomes 0.
        rounding: ``round`` to the nearest (half to even), or ``truncate``.

    Returns:
        ``(H, W, 3)`` uint8, BGR.
    """
    image = image.detach().float().cpu().nan_to_num(0, 1, 0).clamp(0, 1)
    image = image[0] if image.ndim == 4 else image
    values = image.flip(0).permute(1, 2, 0).numpy() * np.float32(255)
    return (np.trunc(values) if rounding == 'truncate' else np.rint(values)).astype(np.uint8)
