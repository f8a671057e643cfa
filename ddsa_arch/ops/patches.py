"""Training patches from image pairs. Arrays are HWC; both images of a pair get the same treatment."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np


def random_crop(images: Sequence[np.ndarray], size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Cut the same random ``size`` x ``size`` window out of every image.

    An image smaller than the window is first extended at the bottom and the right by reflection (without repeating
    the edge pixel), or by repetition where a side is a single pixel.

    Args:
        images: arrays of one height and width.
        size: in pixels, at least 1.
        rng: draws the top and then the left edge.
    """
    height, width = images[0].shape[:2]
    bottom, right = max(0, size - height), max(0, size - width)
    if bottom or right:
        images = [extend(image, bottom, right) for image in images]
    top = int(rng.integers(images[0].shape[0] - size + 1))
    left = int(rng.integers(images[0].shape[1] - size + 1))
    return [image[top : top + size, left : left + size] for image in images]


def extend(image: np.ndarray, bottom: int, right: int) -> np.ndarray:
    """Extend an HWC image by reflection; OpenCV reflects as often as it takes."""
    height, width = image.shape[:2]
    image = cv2.copyMakeBorder(image, 0, bottom, 0, 0, cv2.BORDER_REFLECT_101 if height > 1 else cv2.BORDER_REPLICATE)
    return cv2.copyMakeBorder(image, 0, 0, 0, right, cv2.BORDER_REFLECT_101 if width > 1 else cv2.BORDER_REPLICATE)


def random_flips(
    images: Sequence[np.ndarray], rng: np.random.Generator, horizontal: bool = True, vertical: bool = True
) -> list[np.ndarray]:
    """Flip all images alike, each direction that is allowed with probability 1/2."""
    flip_columns, flip_rows = rng.random(2) < 0.5
    if horizontal and flip_columns:
        images = [image[:, ::-1] for image in images]
    if vertical and flip_rows:
        images = [image[::-1] for image in images]
    return list(images)


AUGMENTATIONS = ('flips', 'dihedral', 'dihedral9', 'single_flip', 'cycle_spin')
CYCLE_STEP = 50  # pixels, of UMRL's cycle spinning


def augment(
    images: Sequence[np.ndarray],
    rng: np.random.Generator,
    kind: str = 'flips',
    horizontal: bool = True,
    vertical: bool = True,
) -> list[np.ndarray]:
    """Turn or flip all images alike, as a training recipe has it.

    Args:
        images: square HWC arrays where ``kind`` turns them.
        rng: draws.
        kind: ``flips``: see ``random_flips``. ``dihedral``: one of the 8 combinations of quarter turns and a flip, all
            alike (Restormer, Uformer). ``dihedral9``: the same with the unchanged image counted twice (MPRNet).
            ``single_flip``: upside down or left to right with probability 1/4 each, never both (IDT).
            ``cycle_spin``: rolled cyclically by a random multiple of 50 pixels in each direction (UMRL).
        horizontal: of ``flips`` alone.
        vertical: of ``flips`` alone.
    """
    if kind == 'flips':
        return random_flips(images, rng, horizontal, vertical)
    if kind == 'single_flip':
        code = int(rng.integers(4))
        return [image[::-1] if code == 0 else image[:, ::-1] if code == 1 else image for image in images]
    if kind == 'cycle_spin':
        shift = [int(rng.integers(-(-side // CYCLE_STEP))) * CYCLE_STEP for side in images[0].shape[:2]]
        return [np.roll(image, shift, (0, 1)) for image in images]
    turns, flip = divmod(int(rng.integers(8 if kind == 'dihedral' else 9)) % 8, 2)
    images = [np.rot90(image, turns) for image in images]
    return [image[::-1] for image in images] if flip else images
