"""The samples of a TIFF page as an array: strips or tiles, one plane or several, of any depth and byte order.

tifffile reads the tags. What was packed is unpacked by zlib, or by the libtiff of Pillow, strip by strip.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image
from tifffile import TiffPage

from ddsa_arch.errors import InputError
from ddsa_arch.files.decoded_size import without_pixel_limit

UNPACKED, ADOBE_DEFLATE, DEFLATE = 1, 8, 32946
BY_LIBTIFF = (5, 32773, 34925, 50000)  # LZW, PackBits, LZMA, Zstandard
PLAIN_COMPRESSIONS = (UNPACKED, ADOBE_DEFLATE, DEFLATE, *BY_LIBTIFF)
NO_PREDICTOR, HORIZONTAL, FLOATING_POINT = 1, 2, 3
UNSIGNED, FLOAT = 1, 3  # sample formats
SEPARATE_PLANES = 2
LOW_BIT_FIRST = 2  # fill order
REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)).reshape(256, 8)[:, ::-1], axis=1)[:, 0]


def tag_value(page: TiffPage, name: str, default: Any) -> Any:
    """Return the value of a tag, whatever type the file gives it."""
    tag = page.tags.get(name)
    return default if tag is None or tag.value is None else tag.value


def read_samples(data: bytes, page: TiffPage) -> np.ndarray:
    """Return the samples of a page, ``(H, W, samples)``, of the file's type, in this machine's byte order.

    Samples of 1 to 7 bits become uint8 and those of 9 to 15 bits uint16, with their values as they are.

    Raises:
        InputError: the page is cut off, damaged or of a kind that is not taken.
    """
    planes = page.samplesperpixel if page.planarconfig == SEPARATE_PLANES else 1
    samples = page.samplesperpixel // planes
    width, height = page.imagewidth, page.imagelength
    columns, rows = (page.tilewidth, page.tilelength) if page.is_tiled else (width, min(page.rowsperstrip, height))
    if page.imagedepth != 1 or page.tiledepth > 1:
        raise InputError('a TIFF of volumes is not taken; save one of pictures')
    across, down = math.ceil(width / columns), math.ceil(height / rows)
    if len(page.dataoffsets) < planes * across * down:
        raise InputError(f'cannot be decoded ({len(page.dataoffsets)} of {planes * across * down} strips or tiles)')
    kind = _kind(page)
    out = np.empty((height, width, page.samplesperpixel), kind.newbyteorder('='))
    for index in range(planes * across * down):
        plane, place = divmod(index, across * down)
        top, left = place // across * rows, place % across * columns
        stored = rows if page.is_tiled else min(rows, height - top)
        values = _segment(data, page, index, (stored, columns, samples), kind)
        target = out[top : top + rows, left : left + columns, plane : plane + 1 if planes > 1 else None]
        target[...] = values[: target.shape[0], : target.shape[1]]
    return out


def _kind(page: TiffPage) -> np.dtype:
    """Return the type of the samples as they are stored.

    Raises:
        InputError: it is none that an image is made of.
    """
    bits = {int(b) for b in np.atleast_1d(tag_value(page, 'BitsPerSample', 1))}
    formats = {int(f) for f in np.atleast_1d(tag_value(page, 'SampleFormat', UNSIGNED))}
    order = page.parent.byteorder
    if len(bits) == 1 and len(formats) == 1:
        (depth,), (form,) = bits, formats
        if form == FLOAT and depth in (16, 32, 64):
            return np.dtype(f'{order}f{depth // 8}')
        if form in (UNSIGNED, 4) and depth in (*range(1, 17), 32):  # 4: undefined
            return np.dtype(f'{order}u{1 if depth <= 8 else 2 if depth <= 16 else 4}')
    names = {1: 'unsigned', 2: 'signed', 3: 'floating-point', 4: 'untyped', 5: 'complex', 6: 'complex'}
    told = '/'.join(names.get(form, str(form)) for form in sorted(formats))
    depths = '/'.join(map(str, sorted(bits)))
    raise InputError(f'{told} numbers of {depths} bits are not taken; save 8 or 16 bits for a channel, unsigned')


def _segment(data: bytes, page: TiffPage, index: int, shape: tuple[int, int, int], kind: np.dtype) -> np.ndarray:
    """Return a strip or tile of a shape (rows, columns, samples)."""
    rows, columns, samples = shape
    bits = int(np.atleast_1d(tag_value(page, 'BitsPerSample', 1))[0])
    row_bytes = (columns * samples * bits + 7) // 8
    offset, count = page.dataoffsets[index], page.databytecounts[index]
    if offset == 0 and count == 0:  # left out, as it is empty
        return np.zeros(shape, kind.newbyteorder('='))
    packed = int(page.compression) != UNPACKED
    raw = data[offset : offset + (count if packed else rows * row_bytes)]
    if packed and len(raw) < count:
        raise InputError(f'truncated (it ends within strip or tile {index})')
    if page.fillorder == LOW_BIT_FIRST:
        raw = REVERSED[np.frombuffer(raw, np.uint8)].tobytes()
    plain = _unpack(raw, int(page.compression), row_bytes, rows) if packed else raw
    if len(plain) < rows * row_bytes:
        raise InputError(f'truncated (strip or tile {index} has {len(plain)} of {rows * row_bytes} bytes)')
    lines = np.frombuffer(plain, np.uint8, rows * row_bytes).reshape(rows, row_bytes)
    predictor = int(page.predictor)
    if bits % 8:
        if predictor != NO_PREDICTOR:
            raise InputError(f'a predictor over samples of {bits} bits is not taken; save 8 or 16 bits for a channel')
        return _of_bits(lines, columns * samples, bits).reshape(shape)
    if predictor == FLOATING_POINT:
        return _without_float_predictor(lines, shape, kind)
    values = lines.view(kind).astype(kind.newbyteorder('='), copy=False).reshape(shape)
    if predictor == HORIZONTAL:
        return np.cumsum(values, axis=1, dtype=values.dtype)
    if predictor != NO_PREDICTOR:
        raise InputError(f'predictor {predictor} is not taken; save without one')
    return values


def _unpack(raw: bytes, compression: int, row_bytes: int, rows: int) -> bytes:
    if compression in (ADOBE_DEFLATE, DEFLATE):
        return zlib.decompressobj().decompress(raw, rows * row_bytes)
    with without_pixel_limit(), Image.open(io.BytesIO(_grey_tiff(raw, compression, row_bytes, rows))) as image:
        return b''.join(_bands(image))


def _bands(image: Image.Image) -> Iterator[bytes]:
    step = max(1, 2**24 // image.width)
    for top in range(0, image.height, step):
        yield image.crop((0, top, image.width, min(image.height, top + step))).tobytes()


def _grey_tiff(strip: bytes, compression: int, width: int, height: int) -> bytes:
    """Return a TIFF of one strip whose pixels are the unpacked bytes, so that libtiff unpacks them."""
    short, long = 3, 4
    tags = (
        (256, long, width), (257, long, height), (258, short, 8), (259, short, compression), (262, short, 1),
        (273, long, 8), (277, short, 1), (278, long, height), (279, long, len(strip)),
    )  # fmt: skip
    padded = strip + b'\0' * (len(strip) % 2)
    entries = (struct.pack('<HHI', tag, kind, 1) + struct.pack('<I', value) for tag, kind, value in tags)
    head = struct.pack('<2sHI', b'II', 42, 8 + len(padded))
    return head + padded + struct.pack('<H', len(tags)) + b''.join(entries) + bytes(4)


def _of_bits(lines: np.ndarray, count: int, bits: int) -> np.ndarray:
    """Return the first numbers of so many bits of each row of bytes."""
    digits = np.unpackbits(lines, axis=1, count=count * bits).reshape(len(lines), count, bits)
    kind = np.uint8 if bits < 8 else np.uint16
    values = np.zeros(digits.shape[:2], kind)
    for place in range(bits):
        values = (values << 1) | digits[..., place]
    return values.astype(kind, copy=False)


def _without_float_predictor(lines: np.ndarray, shape: tuple[int, int, int], kind: np.dtype) -> np.ndarray:
    """Undo Adobe's predictor for floating point: differences of bytes, the highest bytes of a row first."""
    rows, columns, samples = shape
    if kind.kind != 'f':
        raise InputError('the predictor for floating point stands over whole numbers; save the file again')
    summed = np.cumsum(lines.reshape(rows, -1, samples), axis=1, dtype=np.uint8)
    planes = summed.reshape(rows, kind.itemsize, columns * samples)
    values = np.ascontiguousarray(planes.swapaxes(1, 2)).view(f'>f{kind.itemsize}')
    return values.astype(kind.newbyteorder('=')).reshape(shape)
