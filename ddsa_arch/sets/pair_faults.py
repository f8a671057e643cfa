"""What can be wrong with a pair of rainy input and clean target, told from the two images alone."""

from __future__ import annotations

import cv2
import numpy as np

from ddsa_arch.errors import InputError

REDUCED = 4  # brightness is compared on means over this many pixels squared, which JPEG leaves nearly alone
# Grey levels that count as clearly darker or brighter. In real sets, their inputs re-encoded as JPEG of quality 50 too,
# at most 0.1 % of the pixels get darker by more, and at least 8 % brighter.
MARGIN = 6
DARKER_FROM = 0.02  # share of pixels from which a pair is said to get darker, if fewer get brighter
MAJORITY = 0.5  # share of a set's pairs that get darker from which its sides look swapped

UNEQUAL_SIZES = 'unequal sizes'
IDENTICAL = 'identical'
DARKER = 'darker'


def gray(image: np.ndarray) -> np.ndarray:
    """Compute luma, BT.601 full range, ``(H, W)`` uint8, of ``(H, W, 3)`` uint8 BGR."""
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def brightness_changes(input_gray: np.ndarray, target_gray: np.ndarray) -> tuple[float, float]:
    """Return how much of a picture the rain makes clearly darker, and clearly brighter.

    Args:
        input_gray: ``(H, W)`` uint8.
        target_gray: the same shape.

    Returns:
        The two shares of the picture, each in [0, 1].
    """
    height, width = (max(1, size // REDUCED) for size in input_gray.shape)
    reduced = [
        cv2.resize(side, (width, height), interpolation=cv2.INTER_AREA).astype(np.int16)
        for side in (input_gray, target_gray)
    ]
    change = reduced[0] - reduced[1]
    return float((change < -MARGIN).mean()), float((change > MARGIN).mean())


def pair_fault(
    rainy: np.ndarray, clean: np.ndarray, input_gray: np.ndarray, target_gray: np.ndarray
) -> tuple[str, str] | None:
    """Return what is wrong with a pair, or None for a sound one.

    Args:
        rainy: the input, ``(H, W, 3)`` uint8 BGR.
        clean: the target.
        input_gray: the input as :func:`gray` gives it.
        target_gray: the target likewise.

    Returns:
        The fault, ``UNEQUAL_SIZES``, ``IDENTICAL`` or ``DARKER``, and a remark with the figures.
    """
    if rainy.shape != clean.shape:
        sizes = ' and '.join(f'{image.shape[1]} x {image.shape[0]}' for image in (rainy, clean))
        return UNEQUAL_SIZES, f'input and target are {sizes}'
    if np.array_equal(rainy, clean):
        return IDENTICAL, 'input and target are equal in every pixel'
    darker, brighter = brightness_changes(input_gray, target_gray)
    if darker >= DARKER_FROM and darker > brighter:
        return DARKER, f'the input is darker in {darker:.0%} of the picture, brighter in {brighter:.0%}'
    return None


def swapped_sides(darker: int, pairs: int) -> str | None:
    """Return a warning if most pairs of a set get darker, which tells of swapped folders, else None.

    Args:
        darker: pairs with the fault ``DARKER``.
        pairs: all pairs whose sides could be compared.

    Raises:
        InputError: more pairs get darker than there are.
    """
    if not 0 <= darker <= pairs:
        raise InputError(f'{darker} of {pairs} pairs get darker; want at most all')
    if darker > MAJORITY * pairs:
        return f'{darker} of {pairs} pairs get darker: are input and target swapped?'
    return None
