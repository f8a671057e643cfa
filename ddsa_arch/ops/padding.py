"""Bring an image to a size that a network takes, and back."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Extend ``(B, C, H, W)`` at the bottom and the right until H and W are multiples of ``multiple``.

    By reflection without repeating the edge pixel, as the field's test scripts do, for any size down to 1 x 1:
    a reflection reaches at most size - 1 pixels, so a tiny image is reflected again, and a single pixel repeated.
    """
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
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


def crop_to(x: Tensor, height: int, width: int) -> Tensor:
    """The top left ``height`` x ``width`` of ``(B, C, H, W)``: undoes ``pad_to_multiple``."""
    return x[..., :height, :width]
