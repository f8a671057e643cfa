"""Luma as the field measures it."""

from __future__ import annotations

import numpy as np

# BT.601 studio range, MATLAB's rgb2ycbcr: Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255 with R, G, B in [0, 255]
Y_WEIGHTS_BGR = np.array([24.966, 128.553, 65.481]) / 255.0
Y_OFFSET = 16.0


def luma(image: np.ndarray, rounded: bool) -> np.ndarray:
    """Y of BT.601 studio range, [16, 235], as float64 ``(H, W)``.

    Args:
        image: ``(H, W, 3)`` uint8 BGR.
        rounded: to whole numbers, as MATLAB's rgb2ycbcr does with uint8 images.
    """
    y = image @ Y_WEIGHTS_BGR + Y_OFFSET
    return np.floor(y + 0.5) if rounded else y
