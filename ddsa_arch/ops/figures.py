"""Pictures with labels."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

BAR = 28  # height in pixels of the line of text above a picture
GAP = 6
TEXT_SCALE = 0.5
INK = (32, 32, 32)
PAPER = 255
LEAST_WIDTH = 200  # pixels, so that a label such as `iter 300000: 31.42 dB` fits
MOST_WIDTH = 512


def side_by_side(images: Sequence[np.ndarray], labels: Sequence[str]) -> np.ndarray:
    """Put images in a row, each under its label.

    Args:
        images: ``(H, W, 3)`` uint8 BGR of one height.
        labels: one line each; cut off where it is wider than its image.
    """
    columns = []
    for image, label in zip(images, labels, strict=True):
        bar = np.full((BAR, image.shape[1], 3), PAPER, np.uint8)
        cv2.putText(bar, label, (4, BAR - 9), cv2.FONT_HERSHEY_SIMPLEX, TEXT_SCALE, INK, 1, cv2.LINE_AA)
        columns += [np.vstack([bar, image]), np.full((BAR + image.shape[0], GAP, 3), PAPER, np.uint8)]
    return np.hstack(columns[:-1])


def fit_width(image: np.ndarray, least: int = LEAST_WIDTH, most: int = MOST_WIDTH) -> np.ndarray:
    """Enlarge a narrow image by a whole factor, each pixel a square; shrink a wide one.

    Args:
        image: ``(H, W, 3)`` uint8.
        least: width in pixels below which it is enlarged.
        most: width above which it is shrunk.
    """
    height, width = image.shape[:2]
    if width > most:
        return cv2.resize(image, (most, max(1, round(height * most / width))), interpolation=cv2.INTER_AREA)
    factor = -(-least // width)
    return np.repeat(np.repeat(image, factor, 0), factor, 1)
