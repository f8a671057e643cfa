"""Netpbm images (.ppm, .pgm) of more than 8 bits, which Pillow would cut to 8."""

from __future__ import annotations

import re

import numpy as np

from ddsa_arch.errors import InputError
from ddsa_arch.files.decoded_size import check_memory

HEAD = re.compile(rb'P([2356])(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s')
BYTES = 255  # the largest value that one byte holds
DEEP = 65535
NEEDED = 24  # bytes for a pixel


def is_deep(data: bytes) -> bool:
    """Tell whether these are the bytes of a Netpbm image whose values take 16 bits."""
    head = HEAD.match(data)
    return head is not None and BYTES < int(head[4]) <= DEEP


def decode_deep(data: bytes) -> np.ndarray:
    """Return the pixels, ``(H, W)`` or ``(H, W, 3)``, of all of uint16.

    Raises:
        InputError: the file is cut off, or has a value above the largest that it tells of.
    """
    head = HEAD.match(data)
    assert head is not None
    kind, width, height, most = (int(head[i]) for i in range(1, 5))
    check_memory((width, height), NEEDED)
    shape = (height, width) if kind in (2, 5) else (height, width, 3)
    count = int(np.prod(shape))
    rest = data[head.end() :]
    if not count:
        raise InputError(f'an image of {width} x {height} pixels is none')
    if kind < 4:  # as text
        words = rest.split()
        values = np.array([int(word) for word in words[:count]], np.int64)
    else:
        values = np.frombuffer(rest, '>u2', min(count, len(rest) // 2)).astype(np.int64)
    if values.size < count:
        raise InputError(f'truncated (it has {values.size} of {count} values)')
    if values.max() > most or values.min() < 0:
        raise InputError(f'damaged (a value of {values.max()}, wanted at most {most})')
    return ((values * DEEP + most // 2) // most).astype(np.uint16).reshape(shape)


def encode_deep(pixels: np.ndarray) -> bytes:
    """Return a PGM or PPM of 16 bits of grey or RGB pixels."""
    kind = 'P5' if pixels.ndim == 2 else 'P6'
    return f'{kind}\n{pixels.shape[1]} {pixels.shape[0]}\n{DEEP}\n'.encode() + pixels.astype('>u2').tobytes()
