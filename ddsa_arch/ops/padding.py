"""Bring an image to a size that a network takes, and back."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Extend ``(B, C, H, W)`` by ``pad_to`` until H and W are multiples of ``multiple``."""
    height, width = x.shape[-2:]
    return pad_to(x, height + -height % multiple, width + -width % multiple)


def pad_to(x: Tensor, height: int, width: int) -> Tensor:
    """Extend ``(B, C, H, W)`` at the bottom and the right to ``height`` and ``width``; a larger side stays.

    By reflection without repeating the edge pixel, as the field's test scripts do, for any size down to 1 x 1:
    a reflection reaches at most size - 1 pixels, so a tiny image is reflected again, and a single pixel repeated.
    """
    bottom, right = max(0, height - x.shape[-2]), max(0, width - x.shape[-1])
    while bottom or right:
        height, width = x.shape[-2:]
        down, across = min(bottom, height - 1), min(right, width - 1)
        if (bottom and not down) or (right and not across):  # a single row or column
            x = F.pad(x, (0, right if width == 1 else 0, 0, bottom if height == 1 else 0), mode='replicate')
            bottom = 0 if height == 1 else bottom
            right = 0 if width == 1 else right
            continue
        x = F.pad(x, (0, across, 0, down), mode='reflect')
        bottom, right = bottom - down, right - across
    return x


def pad_square(x: Tensor, multiple: int) -> tuple[Tensor, int, int]:
    """Put ``(B, C, H, W)`` into the middle of a black square, as Uformer's test script does.

    Args:
        x: of any size.
        multiple: of which the side of the square is the next multiple from the longer side up.

    Returns:
        The square, and the row and column at which the image begins in it.
    """
    height, width = x.shape[-2:]
    side = max(height, width) + -max(height, width) % multiple
    top, left = (side - height) // 2, (side - width) // 2
    return F.pad(x, (left, side - width - left, top, side - height - top)), top, left


def crop_to(x: Tensor, height: int, width: int, top: int = 0, left: int = 0) -> Tensor:
    """Cut ``height`` x ``width`` out of ``(B, C, H, W)``, by default the top left, which undoes the padding."""
    return x[..., top : top + height, left : left + width]
