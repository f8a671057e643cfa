"""Luma, by the definition that the field's metrics use."""

from __future__ import annotations

import numpy as np

# BT.601 studio range, MATLAB's rgb2ycbcr: Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255 with R, G, B in [0, 255].
# In units of 1 / 255000 all is whole, so that rounding up from a half depends on no processor's matrix product.
Y_WEIGHTS_BGR = np.array([24966.0, 128553.0, 65481.0])
Y_UNIT = 255_000
Y_OFFSET = 16 * Y_UNIT


def luma(image: np.ndarray, rounded: bool) -> np.ndarray:
    """Compute Y of BT.601, studio range [16, 235], as float64 ``(H, W)``.

    Args:
        image: ``(H, W, 3)`` uint8 BGR.
        rounded: to whole numbers, as MATLAB's rgb2ycbcr does with uint8 images.
    """
    y = image @ Y_WEIGHTS_BGR + Y_OFFSET
    return np.floor((y + Y_UNIT // 2) / Y_UNIT) if rounded else y / Y_UNIT
