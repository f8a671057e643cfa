"""The shape of pixels in a Matroska file.

The muxer takes it from a place that PyAV cannot fill. So a place is held in the header, by an element of the same
length in which nothing is told, and is written over once the file is complete.
"""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

ASPECT_HOLDER = [-(1 << 16), 0, 0, 0, -(1 << 16), 0, 0, 0, 1 << 30]  # a half turn, which is a Projection there
HOLDER = re.compile(rb'(?:\x54\xb2\x81.)?\x76\x70\x8b\x76\x75\x88.{8}', re.DOTALL)  # DisplayUnit, Projection
WIDTH, HEIGHT, UNIT, VOID = b'\x54\xb0\x82', b'\x54\xba\x82', b'\x54\xb2\x81', b'\xec'
PIXELS, RATIO = b'\x00', b'\x03'  # units
LARGEST = 2**16 - 1
HEADER = 2**20  # bytes at the beginning, among which the place is
OPTIONS = {'write_crc32': '0'}  # for the muxer: no sum over bytes that change


def write_aspect(path: Path, width: int, height: int, aspect: Fraction) -> bool:
    """Write the shape of the pixels into a file that was made with ``ASPECT_HOLDER`` and ``OPTIONS``.

    Args:
        path: of the file.
        width, height: in pixels.
        aspect: width of a pixel by its height.

    Returns:
        Whether there was a place for it.
    """
    shown, unit = (width * aspect, Fraction(height)), PIXELS
    if shown[0].denominator != 1:
        ratio = shown[0] / height
        shown, unit = (Fraction(ratio.numerator), Fraction(ratio.denominator)), RATIO
    if max(shown) > LARGEST:
        shown, unit = (Fraction(round(width * aspect)), Fraction(height)), PIXELS
    with open(path, 'r+b') as file:
        held = HOLDER.search(file.read(HEADER))
        if held is None:
            return False
        new = b''.join(name + int(n).to_bytes(2, 'big') for name, n in zip((WIDTH, HEIGHT), shown, strict=True))
        room = len(held[0]) - len(new)
        if room >= 4:
            new, room = new + UNIT + unit, room - 4
        file.seek(held.start())
        file.write(new + (VOID + bytes([0x80 + room - 2]) + bytes(room - 2) if room else b''))
    return True
