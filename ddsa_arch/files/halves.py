"""Files that hold a pair: one half is the clean image, the other the rainy one."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ddsa_arch.errors import InputError
from ddsa_arch.files.images import encode_image, read_image
from ddsa_arch.files.name_rules import HALVES, LEFT_CLEAN, RIGHT_CLEAN

LOOKED_AT = 32  # images from the first to the last, from which the clean half is guessed
CLEAR = 1.3  # times the fine structure of the other half; 440 of Rain800's training pairs pass it, all on one side
ENOUGH = 4  # one in so many of the images looked at must count
TINY = 1e-9  # a flat half has no fine structure at all
DECODED = 32  # images kept, as the two halves of one are read one after the other
HEADER_ROOM = 4096  # bytes by which a PNG of noise may be larger than its pixels


@dataclass(frozen=True)
class HalfImage:
    """The left or the right half of an image file. It is a PNG to those who read its bytes."""

    path: Path
    is_left: bool

    def __str__(self) -> str:
        return f'{self.path}, {"left" if self.is_left else "right"} half'

    @property
    def name(self) -> str:
        return f'{self.path.stem}.png'

    @property
    def stem(self) -> str:
        return self.path.stem

    @property
    def suffix(self) -> str:
        return '.png'

    def read(self) -> np.ndarray:
        """Return the half as ``(H, W/2, 3)`` uint8 BGR.

        Raises:
            InputError: no image, or an odd number of columns.
        """
        whole = _decoded(self.path, os.stat(self.path).st_mtime_ns)
        middle = whole.shape[1] // 2
        return whole[:, :middle] if self.is_left else whole[:, middle:]

    def read_bytes(self) -> bytes:
        """Return the half as a PNG, which keeps every pixel; the same half gives the same bytes."""
        return encode_image(np.ascontiguousarray(self.read()), '.png')

    def byte_size(self) -> int:
        """Return a number of bytes that the PNG does not exceed, from the file's header; 0 for a broken file."""
        try:
            with Image.open(self.path) as header:
                width, height = header.size
        except (OSError, SyntaxError, ValueError):
            return 0
        return width * height * 3 // 2 + height + HEADER_ROOM


@functools.lru_cache(DECODED)
def _decoded(path: Path, _changed: int) -> np.ndarray:
    whole = read_image(path)
    height, width = whole.shape[:2]
    check_even(path, height, width)
    whole.setflags(write=False)
    return whole


def check_even(path: Path, height: int, width: int) -> None:
    """Check that a file can be cut into two halves of one size.

    Raises:
        InputError: it has an odd number of columns.
    """
    if width % 2:
        raise InputError(f'{path}: {width} x {height} pixels cannot be cut into two equal halves; remove it')


def halves_of(path: Path, match: str) -> tuple[HalfImage, HalfImage]:
    """Return the rainy and the clean half of a file, by ``left_clean`` or ``right_clean``."""
    clean_is_left = match == LEFT_CLEAN
    return HalfImage(path, not clean_is_left), HalfImage(path, clean_is_left)


def guess_clean_half(files: Sequence[Path]) -> tuple[str, str]:
    """Guess which half is clean from some of the files, as rain adds fine structure.

    An image counts where one half has ``CLEAR`` times the fine structure of the other; those that count must agree.

    Returns:
        ``left_clean`` or ``right_clean``, and why, in words.

    Raises:
        InputError: too few images count, or they do not agree.
    """
    step = max(1, len(files) // LOOKED_AT)
    looked_at = list(files)[::step][:LOOKED_AT]
    ratios = [_fine_structure(path, False) / max(_fine_structure(path, True), TINY) for path in looked_at]
    right, left = (sum(clear) for clear in ([r > CLEAR for r in ratios], [r * CLEAR < 1 for r in ratios]))
    seen = f'of {len(looked_at)} images looked at, {right} have clearly more fine structure right and {left} left'
    if min(right, left) or (right + left) * ENOUGH < len(looked_at):
        raise InputError(
            f'which half is clean is in doubt: {seen}; tell it with --clean left or --clean right '
            f'(match: {" or ".join(HALVES)} in an option file)'
        )
    return (LEFT_CLEAN if right else RIGHT_CLEAN), seen


def _fine_structure(path: Path, is_left: bool) -> float:
    """Return how far the pixels of a half differ from their neighbourhood, on the mean."""
    gray = cv2.cvtColor(np.ascontiguousarray(HalfImage(path, is_left).read()), cv2.COLOR_BGR2GRAY).astype(np.float32)
    return float(np.abs(gray - cv2.GaussianBlur(gray, (0, 0), 2)).mean())
