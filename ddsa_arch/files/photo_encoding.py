"""Photos as the bytes of a file, in the format of a suffix."""

from __future__ import annotations

import io
import struct
from typing import Any

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from ddsa_arch.errors import InputError
from ddsa_arch.files import netpbm, pngs
from ddsa_arch.files.photo_decoding import Photo
from ddsa_arch.files.photo_formats import PLUGIN_NAMES, WRITTEN, WRITTEN_SUFFIXES
from ddsa_arch.files.pillow_images import load_plugin
from ddsa_arch.files.tiffs import encode_tiff

QUALITY = 95  # of the formats that lose something
SIXTEEN_BITS = ('PNG', 'TIFF', 'PPM', 'JPEG2000')
WITHOUT_ALPHA = ('JPEG', 'BMP', 'PPM')  # Pillow reads no alpha of a BMP
LOSSLESS_JPEG2000 = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
HOW: dict[str, dict[str, Any]] = {  # keywords of Pillow
    'AVIF': {'quality': QUALITY, 'subsampling': '4:4:4'},
    'HEIF': {'quality': QUALITY, 'chroma': 444},
    'JPEG': {'quality': QUALITY, 'subsampling': 0},
    'JXL': {'lossless': True},
    'PNG': {'compress_level': 4},
    'WEBP': {'lossless': True, 'exact': True},  # colours below full transparency too
}
# the metadata that a format has room for in Pillow
KEPT: dict[str, tuple[str, ...]] = {
    'AVIF': ('exif', 'icc_profile', 'xmp'),
    'BMP': ('dpi',),
    'HEIF': ('exif', 'icc_profile', 'xmp'),
    'JPEG': ('exif', 'icc_profile', 'xmp', 'dpi', 'comment'),
    'JXL': ('exif', 'icc_profile', 'xmp'),
    'PNG': ('exif', 'icc_profile', 'dpi'),
    'WEBP': ('exif', 'icc_profile', 'xmp'),
}
ABOUT = {'exif': 'EXIF', 'icc_profile': 'colour profile', 'xmp': 'XMP'}  # metadata whose loss is told


def encode_photo(photo: Photo, suffix: str) -> tuple[bytes, tuple[str, ...]]:
    """Return a photo as the bytes of a file.

    PNG, TIFF, BMP, WebP, JPEG XL, JPEG 2000, TGA and PPM without loss; JPEG, HEIC and AVIF at quality 95 without
    subsampled colours.

    Args:
        suffix: tells the format.

    Returns:
        The bytes, and what could not be kept, one sentence each.

    Raises:
        InputError: the format is not known, or has no room for such an image.
    """
    suffix = suffix.lower()
    kind = WRITTEN.get(suffix)
    if kind is None:
        raise InputError(f'image format {suffix!r} is not known; use one of {", ".join(WRITTEN_SUFFIXES)}')
    if kind in PLUGIN_NAMES:
        load_plugin(PLUGIN_NAMES[kind])
    pixels, notes = photo.pixels, []
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if kind in WITHOUT_ALPHA and channels in (2, 4):
        notes.append(f'{suffix} has no alpha')
        pixels = pixels[..., 0] if channels == 2 else pixels[..., :3]
    pixels, lost = _at_depth(pixels, kind, suffix)
    notes += lost
    if kind not in ('TIFF', *KEPT):
        lost = [name for key, name in ABOUT.items() if key in photo.metadata]
        notes += [f'{suffix} has no room for {", ".join(lost)}'] if lost else []
    try:
        return _encode(np.ascontiguousarray(pixels), kind, photo.metadata), tuple(notes)
    except InputError:
        raise
    except (OSError, ValueError, struct.error, RuntimeError, cv2.error) as error:
        size = f'{pixels.shape[1]} x {pixels.shape[0]}'
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f'an image of {size} pixels cannot be written as {suffix} ({reason})') from error


def _at_depth(pixels: np.ndarray, kind: str, suffix: str) -> tuple[np.ndarray, list[str]]:
    """Return the pixels at a depth that a format has, and a note if it is a lower one."""
    if pixels.dtype == np.uint8 or (pixels.dtype.kind == 'f' and kind == 'TIFF'):
        return pixels, []
    if kind in SIXTEEN_BITS:
        if pixels.dtype == np.uint16:
            return pixels, []
        return np.rint(pixels * np.float32(65535)).astype(np.uint16), [f'{suffix} has 16 bits for a channel']
    scaled = pixels * np.float32(255) if pixels.dtype.kind == 'f' else pixels / 257
    return np.rint(scaled).astype(np.uint8), [f'{suffix} has 8 bits for a channel']


def _encode(pixels: np.ndarray, kind: str, metadata: dict[str, Any]) -> bytes:
    if kind == 'TIFF':
        return encode_tiff(pixels, metadata)
    if pixels.dtype == np.uint8:
        return _by_pillow(Image.fromarray(pixels), kind, metadata)
    if kind == 'PPM':
        return netpbm.encode_deep(pixels)
    if kind == 'JPEG2000':
        return _deep_jpeg2000(pixels)
    stand_in = _by_pillow(Image.new('RGB', (1, 1)), 'PNG', metadata)
    drop = (pngs.HEADER, pngs.DATA, pngs.END)
    return pngs.with_chunks(
        pngs.encode_sixteen_bits(pixels), [(kind, c) for kind, c, _ in pngs.chunks(stand_in) if kind not in drop]
    )


def _by_pillow(image: Image.Image, kind: str, metadata: dict[str, Any]) -> bytes:
    kept = {key: metadata[key] for key in KEPT.get(kind, ()) if key in metadata}
    if kind == 'PNG':
        kept['pnginfo'] = _png_text(metadata)
    out = io.BytesIO()
    image.save(out, kind, **HOW.get(kind, {}), **kept)
    data = out.getvalue()
    return pngs.with_chunks(data, metadata['colour_space']) if kind == 'PNG' and 'colour_space' in metadata else data


def _png_text(metadata: dict[str, Any]) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, value in metadata.get('text', {}).items():
        info.add_text(key, value)
    if 'xmp' in metadata:
        info.add_itxt('XML:com.adobe.xmp', metadata['xmp'].decode('utf-8', 'replace'))
    return info


def _deep_jpeg2000(pixels: np.ndarray) -> bytes:
    order = {1: None, 2: [0, 0, 0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[1 if pixels.ndim == 2 else pixels.shape[2]]
    values = pixels if order is None else np.ascontiguousarray(pixels[..., order])
    done, data = cv2.imencode('.jp2', values, LOSSLESS_JPEG2000)
    if not done:
        raise InputError(f'{pixels.shape[1]} x {pixels.shape[0]} pixels of 16 bits cannot be written as .jp2; '
                         'take --format png')  # fmt: skip
    return data.tobytes()
