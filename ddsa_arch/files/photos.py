"""People's photos: read with all that belongs to them, and written so that nothing of it is lost.

Pillow reads and writes all of 8 bits. 16 bits for a channel go through OpenCV, as Pillow cuts those of colours to 8.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageCms, PngImagePlugin, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from ddsa_arch.errors import InputError
from ddsa_arch.files.atomic import atomic_path
from ddsa_arch.files.images import IMAGE_SUFFIXES

JPEG_QUALITY = 95
ORIENTATION = 0x0112  # EXIF tag
BITS_PER_SAMPLE, SAMPLE_FORMAT = 258, 339  # TIFF tags
FLOATING = 3  # SAMPLE_FORMAT
# by which an upright picture comes from the stored one, as EXIF numbers them
UPRIGHT = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
SIXTEEN_BIT_SUFFIXES = ('.png', '.tif', '.tiff')
WITHOUT_ALPHA = ('.jpg', '.jpeg', '.bmp')  # Pillow reads no alpha of a BMP
XMP_ORIENTATION = re.compile(rb'tiff:Orientation="\d"|<tiff:Orientation>\d</tiff:Orientation>')


@dataclass(frozen=True)
class Photo:
    """A photo, upright.

    Args:
        pixels: ``(H, W)`` grey, ``(H, W, 2)`` grey and alpha, ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGB and alpha; uint8
            or uint16.
        metadata: of Pillow's keywords for saving: ``exif``, ``icc_profile``, ``xmp``, ``dpi``, ``text``.
        notes: what could not be kept, one sentence each.
    """

    pixels: np.ndarray
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def with_pixels(self, pixels: np.ndarray) -> Photo:
        """Return the same photo with other pixels."""
        return replace(self, pixels=pixels)


def read_photo(path: str | Path) -> Photo:
    """Read an image file, whatever its name says.

    Raises:
        InputError: it is missing, empty, no image of a known kind, cut off, or made of floating-point numbers.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror})') from error
    if not data:
        raise InputError(f'{path}: empty (0 bytes)')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of large images, odd EXIF and the like
            return _decode(data)
    except UnidentifiedImageError as error:
        raise InputError(f'{path}: no image of a known kind ({len(data)} bytes)') from error
    except InputError as error:
        raise InputError(f'{path}: {error}') from error
    # whatever a decoder meets in a broken file
    except (OSError, ValueError, SyntaxError, EOFError, KeyError, IndexError, TypeError, AttributeError, struct.error,
            zlib.error, OverflowError, cv2.error, Image.DecompressionBombError) as error:  # fmt: skip
        raise InputError(f'{path}: cannot be decoded ({str(error) or type(error).__name__})') from error


def _decode(data: bytes) -> Photo:
    with Image.open(io.BytesIO(data)) as image:
        exif = image.getexif()
        turn = 1 if image.format == 'TIFF' else exif.get(ORIENTATION, 1)  # both libraries turn a TIFF themselves
        notes = []
        if (frames := getattr(image, 'n_frames', 1)) > 1:
            notes.append(f'the first of {frames} frames')
        if _bits(image, data) == 16 or image.mode.startswith('I'):
            pixels, metadata = _sixteen_bits(data), _metadata(image, exif)
        else:
            plain, note = _plain_mode(image)
            notes += note
            pixels, metadata = np.asarray(plain), _metadata(plain, exif)
    pixels = np.ascontiguousarray(UPRIGHT.get(turn, lambda a: a)(pixels))
    return Photo(pixels, metadata, tuple(notes))


def _bits(image: Image.Image, data: bytes) -> int:
    """Return the bits of one channel of an image.

    Raises:
        InputError: the channels are floating-point numbers.
    """
    if image.format == 'PNG':
        return data[24]  # of the header
    if isinstance(image, TiffImageFile):
        if image.mode == 'F' or FLOATING in np.atleast_1d(image.tag_v2.get(SAMPLE_FORMAT, 1)):
            raise InputError('floating-point pixels are not taken; save 8 or 16 bits for a channel')
        return int(np.max(image.tag_v2.get(BITS_PER_SAMPLE, 1)))
    return 8


def _sixteen_bits(data: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise InputError('cannot be decoded (16 bits for a channel, of a kind that OpenCV does not know)')
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    return pixels


def _plain_mode(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Convert to L, LA, RGB or RGBA; also return a note if that may change the picture."""
    if image.mode in ('L', 'LA', 'RGB', 'RGBA'):
        transparent = image.mode in ('L', 'RGB') and 'transparency' in image.info
        return (image.convert('LA' if image.mode == 'L' else 'RGBA') if transparent else image), []
    if image.mode == '1':
        return image.convert('L'), []
    if image.mode in ('P', 'PA', 'RGBa', 'La'):
        alpha = image.mode != 'P' or 'transparency' in image.info
        return image.convert('RGBA' if alpha else 'RGB'), []
    profile = image.info.pop('icc_profile', None)
    note = [f'{image.mode} became RGB']
    if image.mode == 'CMYK' and profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile('sRGB'), outputMode='RGB')
        except ImageCms.PyCMSError:
            converted = None  # a broken profile
        if converted is not None:
            return converted, note
    return image.convert('RGB'), note


def _metadata(image: Image.Image, exif: Image.Exif) -> dict[str, Any]:
    """Return the metadata that can be written again, without the orientation, as the pixels are upright now."""
    kept: dict[str, Any] = {}
    exif.pop(ORIENTATION, None)
    if image.format == 'TIFF':  # its layout is no metadata
        exif = _camera_tags(exif)
    if len(exif):
        kept['exif'] = exif.tobytes()
    for key in ('icc_profile', 'dpi'):
        if image.info.get(key):
            kept[key] = image.info[key]
    xmp = image.info.get('xmp') or image.info.get('XML:com.adobe.xmp')
    if xmp:
        kept['xmp'] = XMP_ORIENTATION.sub(b'', xmp.encode() if isinstance(xmp, str) else xmp)
    text = {k: str(v) for k, v in getattr(image, 'text', {}).items() if k != 'XML:com.adobe.xmp'}
    return kept | ({'text': text} if text else {})


def _camera_tags(exif: Image.Exif) -> Image.Exif:
    """Return the tags of a TIFF that describe the photo, without those that describe its layout in the file."""
    told = Image.Exif()
    for tag in (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298):  # description to copyright
        if tag in exif:
            told[tag] = exif[tag]
    for block in (0x8769, 0x8825):  # camera, GPS
        tags = exif.get_ifd(block)
        if tags:
            told.get_ifd(block).update(tags)
    return told


def write_photo(path: str | Path, photo: Photo) -> tuple[str, ...]:
    """Write a photo in the format of the suffix, whole or not at all; parent folders are made.

    PNG, TIFF, BMP and WebP without loss, JPEG at quality 95 without subsampled colours.

    Returns:
        What could not be kept, one sentence each.

    Raises:
        InputError: the format is not known, or has no room for such an image.
        OSError: the file cannot be written.
    """
    data, notes = encode_photo(photo, Path(path).suffix)
    with atomic_path(path) as part:
        part.write_bytes(data)
    return notes


def encode_photo(photo: Photo, suffix: str) -> tuple[bytes, tuple[str, ...]]:
    """Return the bytes that ``write_photo`` writes, and what could not be kept."""
    suffix = suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise InputError(f'image format {suffix!r} is not known; use one of {", ".join(IMAGE_SUFFIXES)}')
    pixels, notes = photo.pixels, []
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if suffix in WITHOUT_ALPHA and channels in (2, 4):
        notes.append(f'{suffix} has no alpha')
        pixels = pixels[..., 0] if channels == 2 else pixels[..., :3]
    if pixels.dtype == np.uint16:
        if suffix in SIXTEEN_BIT_SUFFIXES:
            data, lost = _encode_sixteen_bits(pixels, suffix, photo.metadata)
            return data, (*notes, *lost)
        notes.append(f'{suffix} has 8 bits for a channel')
        pixels = np.rint(pixels / 257).astype(np.uint8)
    image = Image.fromarray(pixels)
    try:
        return _encode(image, suffix, photo.metadata), tuple(notes)
    except (OSError, ValueError, struct.error) as error:
        size = f'{image.width} x {image.height}'
        raise InputError(f'an image of {size} pixels cannot be written as {suffix} ({error})') from error


def _encode(image: Image.Image, suffix: str, metadata: dict[str, Any]) -> bytes:
    formats = {'.jpg': 'JPEG', '.jpeg': 'JPEG', '.tif': 'TIFF', '.tiff': 'TIFF'}
    kept = {k: v for k, v in metadata.items() if k != 'text'}
    kind = formats.get(suffix, suffix[1:].upper())
    by_kind: dict[str, dict[str, Any]] = {  # keywords of Pillow
        'JPEG': {'quality': JPEG_QUALITY, 'subsampling': 0},
        'WEBP': {'lossless': True, 'exact': True},  # colours below full transparency too
        'TIFF': {'compression': 'tiff_lzw'},
        'PNG': {'compress_level': 4},
    }
    how = by_kind.get(kind, {})
    if kind == 'PNG':
        how['pnginfo'] = _png_text(metadata)
        kept.pop('xmp', None)
    if kind == 'BMP':
        kept = {k: v for k, v in kept.items() if k == 'dpi'}
    if kind == 'TIFF' and 'exif' in kept:
        exif = Image.Exif()
        exif.load(kept['exif'])
        kept['exif'] = _camera_tags(exif).tobytes()
        del how['compression']  # libtiff, which compresses, writes no block of tags such as the camera's
    out = io.BytesIO()
    image.save(out, kind, **how, **kept)
    return out.getvalue()


def _png_text(metadata: dict[str, Any]) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, value in metadata.get('text', {}).items():
        info.add_text(key, value)
    if 'xmp' in metadata:
        info.add_itxt('XML:com.adobe.xmp', metadata['xmp'].decode('utf-8', 'replace'))
    return info


def _encode_sixteen_bits(pixels: np.ndarray, suffix: str, metadata: dict[str, Any]) -> tuple[bytes, list[str]]:
    """Encode 16 bits: OpenCV writes the pixels, and a PNG then gets its metadata as Pillow would write it."""
    if pixels.ndim == 3 and pixels.shape[2] == 2:  # OpenCV has no grey with alpha
        pixels = pixels[..., [0, 0, 0, 1]]
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    done, encoded = cv2.imencode(suffix, np.ascontiguousarray(pixels))
    if not done:
        raise InputError(f'an image of shape {pixels.shape} cannot be written as {suffix}')
    data = encoded.tobytes()
    if suffix != '.png':
        return data, ['a TIFF of 16 bits is written without metadata'] if metadata else []
    stand_in = _encode(Image.new('RGB', (1, 1)), '.png', metadata)
    chunks = [c for kind, c in _chunks(stand_in) if kind not in (b'IHDR', b'IDAT', b'IEND')]
    own = list(_chunks(data))
    return data[:8] + own[0][1] + b''.join(chunks) + b''.join(c for _, c in own[1:]), []


def _chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    """Yield the chunks of a PNG as (kind, all of its bytes)."""
    found, at = [], 8
    while at < len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], 'big')
        found.append((png[at + 4 : at + 8], png[at:end]))
        at = end
    return found
