"""Photos from the bytes of a file, upright, with all that belongs to them.

Pillow reads what has 8 bits for a channel. TIFF is read tag by tag, and 16 bits of PNG and JPEG 2000 by OpenCV, as
Pillow cuts those of colours to 8.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from tifffile import TiffFileError

from ddsa_arch.errors import InputError
from ddsa_arch.files import jpeg_xl, netpbm, pngs
from ddsa_arch.files.decoded_size import check_memory
from ddsa_arch.files.photo_metadata import pillow_metadata, without_orientation
from ddsa_arch.files.pillow_images import DEEPER, GREY_16, opened, pixels_of, plain_mode
from ddsa_arch.files.tiffs import ORIENTATION, is_for_pillow, main_page, open_tiff, tiff_pixels, tiff_tags

# by which an upright picture comes from the stored one, as EXIF numbers them
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
TIFF_STARTS = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
ALREADY_UPRIGHT = ('TIFF', 'JXL', 'HEIF')  # their decoders turn what they read
WHOLE_BY_LIBTIFF = (2, 3, 4, 6, 7, 32771)  # ways of packing a TIFF: fax, JPEG
SIZE_MARKER = b'\xff\x4f\xff\x51'  # of JPEG 2000, 42 bytes before the depth
# whatever a decoder raises for a broken file
BROKEN = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError, struct.error, zlib.error,
    OverflowError, RuntimeError, AssertionError, SystemError, ZeroDivisionError, cv2.error, TiffFileError, MemoryError,
    Image.DecompressionBombError,
)  # fmt: skip


@dataclass(frozen=True)
class Photo:
    """A photo, upright.

    Args:
        pixels: ``(H, W)`` grey, ``(H, W, 2)`` grey and alpha, ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGB and alpha; uint8,
            uint16, or float32 in [0, 1].
        metadata: of Pillow's keywords for saving: ``exif``, ``icc_profile``, ``xmp``, ``dpi``, ``text``, ``comment``;
            and ``colour_space``, chunks of a PNG.
        notes: what could not be kept, one sentence each.
    """

    pixels: np.ndarray
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def with_pixels(self, pixels: np.ndarray) -> Photo:
        """Return the same photo with other pixels."""
        return replace(self, pixels=pixels)


def decode_photo(data: bytes) -> tuple[Photo, str]:
    """Return the photo and Pillow's name of its format; metadata that stop a decoder are left out.

    Raises:
        InputError: the bytes are no image, damaged, cut off, of a kind that is not taken, or too large for the memory.
    """
    try:
        return _decode_or_salvage(data)
    except UnidentifiedImageError as error:
        raise InputError(f'no image of a known kind ({len(data)} bytes)') from error
    except InputError:
        raise
    except BROKEN as error:
        lines = str(error).splitlines()
        raise InputError(f'cannot be decoded ({lines[0] if lines else type(error).__name__})') from error


def _decode_or_salvage(data: bytes) -> tuple[Photo, str]:
    decode = _decode_tiff if data[:4] in TIFF_STARTS else _decode_other
    try:
        return decode(data)
    except InputError:
        raise
    except BROKEN:
        bare = _without_metadata(data)
        if bare == data:
            raise
    photo, kind = decode(bare)
    return replace(photo, notes=(*photo.notes, 'its metadata are damaged and left out')), kind


def _without_metadata(data: bytes) -> bytes:
    """Return a PNG or JPEG without what tells about the photo; other kinds stay as they are."""
    if data.startswith(pngs.SIGNATURE):
        return pngs.without_chunks(data, (*pngs.METADATA, *pngs.COLOUR_SPACE, b'pHYs'))
    if not data.startswith(b'\xff\xd8\xff'):
        return data
    at, parts = 2, [data[:2]]
    while data[at : at + 1] == b'\xff' and data[at + 1 : at + 2] not in (b'', b'\xda', b'\xff'):
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
        kind = data[at + 1]
        if not (0xE1 <= kind <= 0xEF or kind == 0xFE) or kind == 0xEE:  # Adobe's segment tells the colours
            parts.append(data[at:end])
        at = end
    return b''.join([*parts, data[at:]])


def _decode_tiff(data: bytes) -> tuple[Photo, str]:
    with open_tiff(data) as tiff:
        page, pages = main_page(tiff)
        notes = [f'the first of {pages} frames'] if pages > 1 else []
        if is_for_pillow(page):
            if int(page.bitspersample) > 8 or int(page.compression) not in WHOLE_BY_LIBTIFF:
                name = getattr(page.compression, 'name', page.compression)
                raise InputError(f'a TIFF of {page.bitspersample} bits packed as {name} is not taken; save it as LZW')
            photo, kind = _decode_other(data)
            return replace(photo, metadata=_tags(data, page)[0]), kind
        picture, alpha, more = tiff_pixels(data, page)
        metadata, turn, unread = _tags(data, page)
    notes += more + unread
    if isinstance(picture, Image.Image):
        picture.info['icc_profile'] = metadata.pop('icc_profile', None)
        plain, note = plain_mode(picture)
        picture, notes = pixels_of(plain), [*notes, *note]
    if alpha is not None:
        picture = np.concatenate([picture if picture.ndim == 3 else picture[..., None], alpha[..., None]], axis=2)
    if picture.ndim == 3 and picture.shape[2] == 1:
        picture = picture[..., 0]
    return _upright(picture, turn, metadata, notes), 'TIFF'


def _tags(data: bytes, page: Any) -> tuple[dict[str, Any], int, list[str]]:
    try:
        exif, metadata = tiff_tags(data, page)
        turn = int(exif.get(ORIENTATION, 1))
        exif.pop(ORIENTATION, None)
        if len(exif):
            metadata['exif'] = exif.tobytes()
        return without_orientation(metadata), turn, []
    except BROKEN:
        return {}, 1, ['its metadata are damaged and left out']


def _decode_other(data: bytes) -> tuple[Photo, str]:
    key: tuple[int, ...] | None = None
    space: tuple[tuple[bytes, bytes], ...] = ()
    notes: list[str] = []
    if data.startswith(pngs.SIGNATURE) and len(data) > len(pngs.SIGNATURE) + 25:
        key, space = pngs.transparent_value(data), pngs.colour_space(data)
        if key is not None:  # which Pillow does not scale as the pixels
            data = pngs.without_chunks(data, (pngs.TRANSPARENT,))
        if name := pngs.hdr_name(space):
            notes.append(f'HDR ({name}); its values were taken as they are, and the network knows no HDR')
    if netpbm.is_deep(data):
        return Photo(netpbm.decode_deep(data)), 'PPM'
    with opened(data) as image:
        kind = image.format or ''
        image.load()  # which turns a TIFF
        metadata, turn, unread = pillow_metadata(image)
        if kind in ALREADY_UPRIGHT:
            turn = 1
        if (frames := getattr(image, 'n_frames', 1)) > 1:
            notes.append(f'the first of {frames} frames')
        pixels, more = _pixels(image, data, metadata)
    if space:
        metadata['colour_space'] = space
    if key is not None:
        alpha = pngs.alpha_of(pixels, key)
        pixels = np.concatenate([pixels if pixels.ndim == 3 else pixels[..., None], alpha[..., None]], axis=2)
    return _upright(pixels, turn, metadata, [*notes, *unread, *more]), kind


def _pixels(image: Image.Image, data: bytes, metadata: dict[str, Any]) -> tuple[np.ndarray, list[str]]:
    """Return the pixels of an image that Pillow has opened, at the depth of the file."""
    kind = image.format
    if kind == 'PNG' and pngs.depth_and_colours(data)[0] == 16:
        check_memory(image.size, DEEPER)
        return pngs.decode_sixteen_bits(data), []
    bits = _told_bits(image, data)
    if kind == 'JPEG2000' and bits > 8:
        check_memory(image.size, DEEPER)
        return _deep_jpeg2000(data, bits), []
    if image.mode in GREY_16:
        return np.asarray(image).astype(np.uint16), []
    if image.mode in ('I', 'F'):
        raise InputError(f'pixels of 32 bits in a {kind} are not taken; save 8 or 16 bits for a channel')
    if image.mode == 'CMYK' and 'icc_profile' in metadata:
        image.info['icc_profile'] = metadata['icc_profile']
    plain, notes = plain_mode(image)
    if plain.mode == 'RGB' and image.mode not in ('RGB', 'RGBA', 'P', 'PA', 'RGBa', '1'):
        metadata.pop('icc_profile', None)  # of the colours that were
    if bits > 8:
        notes.append(f'{bits} bits for a channel became 8')
    return pixels_of(plain), notes


def _told_bits(image: Image.Image, data: bytes) -> int:
    """Return the bits of a channel that JPEG 2000, JPEG XL, AVIF or HEIC tells of, 8 for other formats."""
    if image.format == 'JPEG2000':
        at = data.find(SIZE_MARKER)
        return (data[at + 42] & 0x7F) + 1 if 0 <= at < len(data) - 42 else 8
    if image.format == 'JXL':
        return jpeg_xl.bits_of(data)
    if image.format == 'HEIF':
        return int(image.info.get('bit_depth') or 8)
    if image.format == 'AVIF' and (at := data.find(b'pixi')) > 0:
        return max(data[at + 9 : at + 9 + data[at + 8]], default=8)
    return 8


def _deep_jpeg2000(data: bytes, bits: int) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise InputError(f'a JPEG 2000 of {bits} bits for a channel that OpenCV does not decode')
    if bits < 16:
        most = 2**bits - 1
        pixels = ((pixels.astype(np.uint32) * 65535 + most // 2) // most).astype(np.uint16)
    return pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]


def _upright(pixels: np.ndarray, turn: int, metadata: dict[str, Any], notes: list[str]) -> Photo:
    if turn >= 5 and 'dpi' in metadata:
        metadata['dpi'] = tuple(reversed(metadata['dpi']))
    upright = np.ascontiguousarray(UPRIGHT.get(turn, lambda a: a)(pixels))
    return Photo(upright, metadata, tuple(dict.fromkeys(notes)))
