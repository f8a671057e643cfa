"""The size of an image by its first bytes, and whether the memory is enough for it, before it is decoded."""

from __future__ import annotations

import io
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from PIL import Image

from ddsa_arch.errors import InputError

CGROUP = Path('/sys/fs/cgroup')
NEVER_TOO_LARGE = 2**28  # bytes, for which the system is not asked
GIGABYTE = 1e9
JPEG_SIZES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))  # kinds of start of frame
# what Pillow raises for a header that it does not understand
NO_HEADER = (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError, struct.error)

_pillow = threading.RLock()  # for a setting of Pillow that holds for the whole process


def image_size(data: bytes) -> tuple[int, int] | None:
    """Return the width and height that an encoded image tells of, None if its header cannot be understood."""
    try:
        if data.startswith(b'\x89PNG'):
            return struct.unpack('>II', data[16:24])
        if data.startswith(b'\xff\xd8\xff'):
            return _jpeg_size(data)
        if data[:4] == b'RIFF' and data[8:12] == b'WEBP':
            return _webp_size(data)
        with warnings.catch_warnings(), without_pixel_limit():
            warnings.simplefilter('ignore')
            with Image.open(io.BytesIO(data)) as image:
                return image.size
    except NO_HEADER:
        return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while data[at : at + 1] == b'\xff' and data[at + 1 : at + 2] not in (b'', b'\xda'):
        if data[at + 1] in JPEG_SIZES:
            height, width = struct.unpack('>HH', data[at + 5 : at + 9])
            return width, height
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
    return None


def _webp_size(data: bytes) -> tuple[int, int]:
    if data[12:16] == b'VP8X':
        return 1 + int.from_bytes(data[24:27], 'little'), 1 + int.from_bytes(data[27:30], 'little')
    if data[12:16] == b'VP8L':
        bits = struct.unpack('<I', data[21:25])[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack('<HH', data[26:30])
    return width & 0x3FFF, height & 0x3FFF


@contextmanager
def without_pixel_limit() -> Iterator[None]:
    """Let Pillow open images of any size during the block, as the memory is the limit here."""
    with _pillow:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def check_memory(size: tuple[int, int], bytes_per_pixel: float) -> None:
    """Check that an image can be decoded in the free memory.

    Args:
        size: width and height.
        bytes_per_pixel: what is needed at the same time, with all copies.

    Raises:
        InputError: it cannot.
    """
    width, height = size
    need = width * height * bytes_per_pixel
    if need <= NEVER_TOO_LARGE:
        return
    free = available_memory()
    if need > free:
        raise InputError(
            f'{width} x {height} pixels need {need / GIGABYTE:.1f} GB of memory, and {free / GIGABYTE:.1f} GB are '
            'free; make the image smaller, or take a machine with more memory'
        )


def available_memory() -> float:
    """Return the bytes that this process can still take, within the limit of a container."""
    return min(psutil.virtual_memory().available, left_in_container())


def left_in_container(folder: Path = CGROUP) -> float:
    """Return the bytes left below the limit of a Linux container, infinite if it has none."""
    names = (('memory.max', 'memory.current'), ('memory/memory.limit_in_bytes', 'memory/memory.usage_in_bytes'))
    for limit, used in names:
        try:
            return max(0, int((folder / limit).read_text()) - int((folder / used).read_text()))
        except (OSError, ValueError):  # not there, or the word max
            continue
    return float('inf')
