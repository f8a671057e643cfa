"""Process an image in overlapping tiles, for networks that take one size alone and for images that are too large."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

TILE_WEIGHTS = ('uniform', 'centre', 'pyramid', 'first')
CENTRE_SOFTENING = 1e-3  # of IDT's test script; the weight of a tile's centre is about 31.6


def tile_starts(length: int, size: int, step: int) -> list[int]:
    """Return where tiles of ``size`` begin along a side: 0, step, 2 step ..., and a last one that ends with the side.

    Args:
        length: of the side, at least ``size``.
        size: of a tile.
        step: between tiles, 1 to ``size``.
    """
    return [*range(0, length - size, step), length - size]


def tiled_pixels(height: int, width: int, size: int, overlap: int) -> int:
    """Count the pixels of all tiles of an image; a side below ``size`` is padded to it. See ``process_tiles``."""
    counts = (len(tile_starts(max(side, size), size, size - overlap)) for side in (height, width))
    return size * size * math.prod(counts)


def tile_weight(size: int, kind: str = 'uniform', dtype: torch.dtype = torch.float32) -> Tensor:
    """Return how much each pixel of a tile counts where tiles overlap, ``(size, size)``, positive.

    ``uniform`` averages the tiles. ``centre`` is that of the Image De-raining Transformer (IDT, TPAMI 2022):
    1 / sqrt((r - size/2)^2 + (c - size/2)^2 + 1e-3) at row r and column c. ``pyramid`` falls from the centre to the
    edges of a tile, min(r + 1, size - r) min(c + 1, size - c), so that no seam shows where tiles differ. ``first``
    averages nothing: a pixel is that of the first tile which has it, rows of tiles from the top, tiles from the left
    (NeRD-Rain, https://arxiv.org/abs/2404.01547).
    """
    if kind in ('uniform', 'first'):
        return torch.ones(size, size, dtype=dtype)
    if kind == 'pyramid':
        row = torch.arange(1, size + 1, dtype=torch.float64)
        row = torch.minimum(row, row.flip(0))
        return (row[:, None] * row).to(dtype)
    if kind != 'centre':
        raise ValueError(f'tile_weight: {kind!r} is not known; choose one of {", ".join(map(repr, TILE_WEIGHTS))}')
    place = torch.arange(size, dtype=torch.float64) - size / 2
    return (place[:, None] ** 2 + place**2 + CENTRE_SOFTENING).rsqrt().to(dtype)


def process_tiles(
    run: Callable[[Tensor], Tensor], x: Tensor, size: int, overlap: int = 0, weight: str = 'uniform'
) -> Tensor:
    """Run overlapping tiles through ``run`` and return the weighted mean of the results, or the first of them.

    Args:
        run: ``(B, C, size, size)`` to the same shape.
        x: ``(B, C, H, W)``, H and W at least ``size``.
        size: side of a tile in pixels.
        overlap: pixels that neighbouring tiles share, below ``size``; the last ones may share more.
        weight: see ``tile_weight``.

    Raises:
        ValueError: the image is smaller than a tile, or the overlap not below the size.
    """
    height, width = x.shape[-2:]
    if min(height, width) < size:
        raise ValueError(f'an image of {width} x {height} is smaller than a tile of {size}; pad it first')
    if not 0 <= overlap < size:
        raise ValueError(f'overlap {overlap} is outside 0 to {size - 1} for tiles of {size}')
    rows = tile_rows(run, lambda top, bottom: x[..., top:bottom, :], height, width, size, overlap, weight)
    return torch.cat([done for _, done in rows], dim=-2)


def tile_rows(
    run: Callable[[Tensor], Tensor],
    read: Callable[[int, int], Tensor],
    height: int,
    width: int,
    size: int,
    overlap: int = 0,
    weight: str = 'uniform',
) -> Iterator[tuple[int, Tensor]]:
    """Do what ``process_tiles`` does in the memory of one row of tiles.

    Args:
        run: see ``process_tiles``.
        read: gives the rows of the image from one up to another one, ``(B, C, rows, width)``.
        height, width: of the image, at least ``size``.
        size, overlap, weight: see ``process_tiles``.

    Yields:
        The first of some rows that are done, and these rows, ``(B, C, rows, width)``, from the top down.
    """
    starts = tile_starts(height, size, size - overlap)
    for top, following in zip(starts, [*starts[1:], height], strict=True):
        band = read(top, top + size)
        if top == 0:
            window = tile_weight(size, weight, band.dtype).to(band.device)
            total, weights = torch.zeros_like(band), band.new_zeros(size, width)
        for left in tile_starts(width, size, size - overlap):
            columns = slice(left, left + size)
            counted = window * (weights[:, columns] == 0) if weight == 'first' else window
            total[..., columns] += run(band[..., columns]) * counted
            weights[:, columns] += counted
        done = following - top
        yield top, total[..., :done, :] / weights[:done]
        for sums in (total, weights):
            sums[..., : size - done, :] = sums[..., done:, :].clone()
            sums[..., size - done :, :] = 0
