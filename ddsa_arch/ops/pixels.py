"""Arrays of all the kinds in which images come, to RGB in [0, 1] and back. Shapes: (H, W, C)."""

from __future__ import annotations

import numpy as np

from ddsa_arch.errors import InputError

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601
RANGES = {'uint8': 255, 'uint16': 65535, 'float16': 1, 'float32': 1, 'float64': 1}
SLACK = 1e-3  # by which floating point may leave [0, 1], from rounding or filters


def check_image(image: np.ndarray) -> None:
    """Check the type and shape of an image, see ``to_rgb``.

    Raises:
        InputError: another shape or type.
    """
    if image.dtype.name not in RANGES:
        raise InputError(f'an image of {image.dtype} cannot be used; wanted {", ".join(RANGES)}')
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 2, 3, 4)) or not image.size:
        raise InputError(f'an array of shape {image.shape} is no image; wanted (H, W), (H, W, 3) or (H, W, 4)')


def to_rgb(image: np.ndarray, bgr: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
    """
    Args:
        image: ``(H, W)``, ``(H, W, 1)``, ``(H, W, 2)``, ``(H, W, 3)`` or ``(H, W, 4)``: grey, grey and alpha, colour,
            colour and alpha; uint8, uint16, or floating point in [0, 1].
        bgr: the order of the colours.

    Returns:
        ``(H, W, 3)`` float32 RGB in [0, 1], and alpha ``(H, W)`` as it was, or None.

    Raises:
        InputError: another shape, type or range.
    """
    check_image(image)
    values = image[..., None] if image.ndim == 2 else image
    alpha = values[..., -1] if values.shape[2] in (2, 4) else None
    colour = values[..., : 3 if values.shape[2] >= 3 else 1]
    whole = RANGES[image.dtype.name]
    rgb = colour.astype(np.float32) / np.float32(whole)
    if whole == 1:
        low, high = float(rgb.min()), float(rgb.max())
        if not (low >= -SLACK and high <= 1 + SLACK):  # NaN too
            found = 'holds NaN' if np.isnan(rgb).any() else f'goes from {low:g} to {high:g}'
            raise InputError(f'a floating-point image is in [0, 1]; this one {found}')
        rgb = rgb.clip(0, 1)
    if rgb.shape[2] == 1:
        rgb = rgb.repeat(3, axis=2)
    return np.ascontiguousarray(rgb[..., ::-1] if bgr else rgb), alpha


def from_rgb(rgb: np.ndarray, like: np.ndarray, alpha: np.ndarray | None, bgr: bool = False) -> np.ndarray:
    """Turn RGB back into the kind of array that ``to_rgb`` took.

    Args:
        rgb: ``(H, W, 3)`` float32 in [0, 1].
        like: what ``to_rgb`` took: shape and type.
        alpha: what ``to_rgb`` gave.
        bgr: the order of the colours.
    """
    channels = 1 if like.ndim == 2 else like.shape[2]
    values = (rgb @ LUMA)[..., None] if channels < 3 else rgb[..., ::-1] if bgr else rgb
    whole = RANGES[like.dtype.name]
    values = values.clip(0, 1) if whole == 1 else np.rint(values.clip(0, 1) * np.float32(whole))
    values = values.astype(like.dtype)
    if alpha is not None:  # numpy joins arrays in the byte order of this machine
        values = np.concatenate([values, alpha[..., None]], axis=2).astype(like.dtype, copy=False)
    return np.ascontiguousarray(values.reshape(like.shape))
