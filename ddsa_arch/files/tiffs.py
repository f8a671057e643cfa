"""TIFF photos of every layout, to grey or RGB with or without alpha, and back."""

from __future__ import annotations

import io
import logging
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin
from tifffile import TiffFile, TiffFileError, TiffPage

from ddsa_arch.errors import InputError
from ddsa_arch.files.decoded_size import check_memory
from ddsa_arch.files.tiff_samples import (
    ADOBE_DEFLATE,
    HORIZONTAL,
    PLAIN_COMPRESSIONS,
    UNPACKED,
    read_samples,
    tag_value,
)

CAMERA, GPS = 0x8769, 0x8825  # blocks of tags
# what a TIFF tells about the photo, not about its layout in the file: names, dates, people, rating, IPTC
ABOUT_PHOTO = (
    0x010D, 0x010E, 0x010F, 0x0110, 0x011D, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x4749, 0x8298, 0x83BB,
    *range(0x9C9B, 0x9CA0),
)  # fmt: skip
ORIENTATION = 0x0112
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, CIELAB, ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9
TAKEN = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, CIELAB: 3, ICCLAB: 3}  # colours
PREMULTIPLIED, STRAIGHT = 1, 2  # kinds of alpha
REDUCED = 1  # of NewSubfileType: a smaller version of another page
ROWS = 256  # that are packed together when writing
LARGEST = 2**32 - 1  # bytes that a TIFF can point to
COPIES = 4  # of the samples that may exist at the same time
INCH, CENTIMETRE = 2, 3
GREY_YCC = (1, 1)  # without subsampling
FULL_RANGE = (0, 255, 128, 255, 128, 255)  # reference black and white of YCbCr as JPEG has it

logging.getLogger('tifffile').addHandler(logging.NullHandler())  # its warnings are no message to a user


def open_tiff(data: bytes) -> TiffFile:
    """Parse the tags of a TIFF.

    Raises:
        InputError: they are damaged.
    """
    try:
        tiff = TiffFile(io.BytesIO(data))
        if not len(tiff.pages):
            raise InputError('a TIFF without a page')
    except TiffFileError as error:
        raise InputError(f'cannot be decoded ({error})') from error
    return tiff


def main_page(tiff: TiffFile) -> tuple[TiffPage, int]:
    """Return the first page that is no reduced version of another one, and the number of such pages."""
    pages = [page for page in tiff.pages if isinstance(page, TiffPage)]
    whole = [page for page in pages if not int(page.subfiletype) & REDUCED] or pages
    if not whole or min(whole[0].imagewidth, whole[0].imagelength) < 1:
        raise InputError('a TIFF without a picture')
    return whole[0], len(whole)


def is_for_pillow(page: TiffPage) -> bool:
    """Tell whether the page is packed in a way that takes libtiff as a whole, such as JPEG or fax."""
    return int(page.compression) not in PLAIN_COMPRESSIONS


def tiff_pixels(data: bytes, page: TiffPage) -> tuple[np.ndarray | Image.Image, np.ndarray | None, list[str]]:
    """Return the picture of a page, not turned.

    Returns:
        Pixels ``(H, W)`` or ``(H, W, 3)``, uint8, uint16 or float32 in [0, 1], or a Pillow image of 8 bits that is to
        become RGB; alpha ``(H, W)`` or None; and notes.

    Raises:
        InputError: the page is damaged, or of a kind that is not taken.
    """
    photometric = -1 if page.photometric is None else int(page.photometric)
    colours = TAKEN.get(photometric, 0)
    if not colours or page.samplesperpixel < colours:
        raise InputError(f'a TIFF of {_named(page)} is not taken; save it as RGB')
    bits = int(np.atleast_1d(tag_value(page, 'BitsPerSample', 1))[0])
    check_memory((page.imagewidth, page.imagelength), COPIES * page.samplesperpixel * max(1, bits / 8))
    samples = read_samples(data, page)
    notes = []
    extra = [int(kind) for kind in np.atleast_1d(tag_value(page, 'ExtraSamples', []))]
    alphas = [i for i, kind in enumerate(extra) if kind in (PREMULTIPLIED, STRAIGHT)][:1]
    alphas = [i for i in alphas if colours + i < samples.shape[2]]
    if left_out := samples.shape[2] - colours - len(alphas):
        notes.append(f'{left_out} of its channels are neither colour nor alpha and are left out')
    alpha = None
    if alphas:
        alpha, note = _full_range(samples[..., colours + alphas[0]], bits)
        notes += note
    colour = samples[..., 0] if colours == 1 else samples[..., :colours]
    if photometric == PALETTE:
        pixels: np.ndarray | Image.Image = _of_palette(colour, page)
    elif photometric in (CIELAB, ICCLAB, YCBCR, CMYK):
        pixels, note = _in_eight_bits(colour, page, photometric)
        notes += note
    else:
        pixels, note = _full_range(colour, bits)
        notes += [one for one in note if one not in notes]
        if photometric == WHITE_IS_ZERO:
            pixels = _whole(pixels.dtype) - pixels
    if alpha is not None and extra[alphas[0]] == PREMULTIPLIED and isinstance(pixels, np.ndarray):
        pixels = _straight(pixels, alpha)
    if alpha is not None and isinstance(pixels, Image.Image) and alpha.dtype == np.uint16:
        alpha = (alpha >> 8).astype(np.uint8)
    return pixels, alpha, notes


def _named(page: TiffPage) -> str:
    photometric = page.photometric
    name = getattr(photometric, 'name', photometric)
    return f'colours of kind {name} with {page.samplesperpixel} channels'


def _whole(kind: np.dtype) -> Any:
    return kind.type(1) if kind.kind == 'f' else np.iinfo(kind).max


def _full_range(values: np.ndarray, bits: int) -> tuple[np.ndarray, list[str]]:
    """Scale samples to all of uint8 or uint16; floating point stays in [0, 1], as float32."""
    if values.dtype.kind == 'f':
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):  # NaN too
            raise InputError(f'floating-point pixels from {low:g} to {high:g} are not taken; scale them to [0, 1]')
        return values.astype(np.float32, copy=False), []
    if values.dtype == np.uint32:
        return (values >> 16).astype(np.uint16), ['32 bits for a channel became 16']
    if bits in (8, 16):
        return values, []
    whole = _whole(values.dtype)
    most = 2**bits - 1
    scaled = (values.astype(np.uint32) * whole + most // 2) // most
    return scaled.astype(values.dtype), [] if bits < 8 else [f'{bits} bits for a channel became 16']


def _of_palette(index: np.ndarray, page: TiffPage) -> np.ndarray:
    palette = np.asarray(page.colormap)
    if palette.ndim != 2 or palette.shape[0] != 3 or index.dtype.kind == 'f' or int(index.max()) >= palette.shape[1]:
        raise InputError('cannot be decoded (its palette is missing or too short)')
    if palette.max() > 255:  # of 16 bits, as it should be
        palette = palette >> 8
    return np.ascontiguousarray(palette.T.astype(np.uint8)[index])


def _in_eight_bits(colour: np.ndarray, page: TiffPage, photometric: int) -> tuple[Image.Image, list[str]]:
    """Return a Pillow image of a colour space that Pillow turns into RGB."""
    name = {CMYK: 'CMYK', YCBCR: 'YCbCr'}.get(photometric, 'LAB')
    if colour.dtype not in (np.uint8, np.uint16):
        raise InputError(f'{name} of {colour.dtype} is not taken; save it as RGB')
    if photometric == YCBCR:
        subsampling = tuple(int(n) for n in np.atleast_1d(tag_value(page, 'YCbCrSubSampling', (2, 2))))
        reference = np.asarray(tag_value(page, 'ReferenceBlackWhite', FULL_RANGE)).ravel()
        values = reference[0::2] / reference[1::2] if reference.size == 12 else reference
        if subsampling != GREY_YCC or not np.allclose(values, FULL_RANGE) or colour.dtype != np.uint8:
            raise InputError('YCbCr that is subsampled, of 16 bits or not of full range is not taken; save it as RGB')
    if photometric == CMYK and int(tag_value(page, 'InkSet', 1)) != 1:
        raise InputError('inks other than CMYK are not taken; save it as RGB')
    notes = []
    if colour.dtype == np.uint16:
        colour = (colour >> 8).astype(np.uint8)
        notes.append(f'{name} of 16 bits for a channel became 8')
    if photometric == ICCLAB:
        colour = colour ^ np.array([0, 128, 128], np.uint8)
    size = colour.shape[1], colour.shape[0]
    return Image.frombytes(name, size, np.ascontiguousarray(colour).tobytes()), notes


def _straight(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Divide colours by the alpha that they were multiplied with."""
    whole = _whole(pixels.dtype)
    cover = alpha if pixels.ndim == 2 else alpha[..., None]
    seen = np.where(cover > 0, cover, whole)
    if pixels.dtype.kind == 'f':
        return np.minimum(pixels / seen, whole).astype(pixels.dtype)
    scaled = (pixels.astype(np.uint64) * whole + seen // 2) // seen
    return np.minimum(scaled, whole).astype(pixels.dtype)


def tiff_tags(data: bytes, page: TiffPage) -> tuple[Image.Exif, dict[str, Any]]:
    """Return the tags that describe the photo, with its camera and place, and Pillow's keywords for the rest."""
    main = _block(data, page.offset)
    told = Image.Exif()
    for tag in (*ABOUT_PHOTO, ORIENTATION):
        if tag in main:
            told[tag] = main[tag]
    for tag in (CAMERA, GPS):
        if isinstance(main.get(tag), int):
            told.get_ifd(tag).update(dict(_block(data, main[tag], tag)))
    kept: dict[str, Any] = {}
    profile, xmp = main.get(34675), main.get(700)
    if isinstance(profile, bytes) and profile:
        kept['icc_profile'] = profile
    if xmp:
        kept['xmp'] = bytes(xmp) if isinstance(xmp, bytes | tuple) else str(xmp).encode()
    across, up = main.get(282), main.get(283)
    unit = main.get(296, INCH)
    if across and up and unit in (INCH, CENTIMETRE):
        scale = 2.54 if unit == CENTIMETRE else 1
        kept['dpi'] = float(across) * scale, float(up) * scale
    return told, kept


def _block(data: bytes, offset: int, group: int | None = None) -> TiffImagePlugin.ImageFileDirectory_v2:
    """Read a block of tags by Pillow, which knows their types."""
    head = data[: 16 if data[2:4] in (b'+\0', b'\0+') else 8]  # BigTIFF or not
    block = TiffImagePlugin.ImageFileDirectory_v2(head, group=group)
    file = io.BytesIO(data)
    file.seek(offset)
    block.load(file)
    return block


def camera_tags(exif: Image.Exif) -> Image.Exif:
    """Return the tags that describe the photo, without those that describe its layout in a file."""
    told = Image.Exif()
    for tag in ABOUT_PHOTO:
        if tag in exif:
            told[tag] = exif[tag]
    for block in (CAMERA, GPS):
        tags = exif.get_ifd(block)
        if tags:
            told.get_ifd(block).update(tags)
    return told


def encode_tiff(pixels: np.ndarray, metadata: dict[str, Any]) -> bytes:
    """Return a TIFF of one page, packed without loss.

    Args:
        pixels: ``(H, W)`` or ``(H, W, 2 to 4)``, uint8, uint16 or float32; the last of 2 or 4 channels is alpha.
        metadata: Pillow's keywords ``exif``, ``icc_profile``, ``xmp`` and ``dpi``.

    Raises:
        InputError: the file would be larger than a TIFF can be.
    """
    values = pixels[..., None] if pixels.ndim == 2 else pixels
    height, width, samples = values.shape
    strips = [_packed(values[top : top + ROWS]) for top in range(0, height, ROWS)]
    ends = np.cumsum([len(strip) for strip in strips]).tolist()
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    if 'exif' in metadata:
        exif = Image.Exif()
        exif.load(metadata['exif'])
        _put(tags, camera_tags(exif))
    whole = values.dtype.kind != 'f'
    layout: dict[int, int | float | bytes | Sequence[int]] = {
        256: width, 257: height, 258: (values.dtype.itemsize * 8,) * samples, 259: ADOBE_DEFLATE,
        262: RGB if samples > 2 else BLACK_IS_ZERO, 273: (0, *ends[:-1]), 277: samples, 278: ROWS,
        279: tuple(len(strip) for strip in strips), 284: 1, 317: HORIZONTAL if whole else UNPACKED,
        339: (1 if whole else 3,) * samples,
    }  # fmt: skip
    if samples in (2, 4):
        layout[338] = STRAIGHT
    if 'dpi' in metadata:
        layout |= {282: float(metadata['dpi'][0]), 283: float(metadata['dpi'][1]), 296: INCH}
    if 'xmp' in metadata:
        layout[700] = metadata['xmp']
    if 'icc_profile' in metadata:
        layout[34675] = metadata['icc_profile']
    for tag, value in layout.items():
        tags[tag] = value
    for tag, kind in ((700, 1), (34675, 7), (273, 4), (279, 4)):  # bytes, undefined, long
        if tag in layout:
            tags.tagtype[tag] = kind
    out = io.BytesIO()
    tags.save(out)
    if out.tell() + ends[-1] > LARGEST:
        raise InputError(f'{width} x {height} pixels are more than a TIFF can hold; take --format png')
    return out.getvalue() + b''.join(strips)


def _put(tags: TiffImagePlugin.ImageFileDirectory_v2, exif: Image.Exif) -> None:
    for tag in exif:
        tags[tag] = exif[tag]
    for block in (CAMERA, GPS):
        inner = exif.get_ifd(block)
        if inner:
            tags[block] = dict(inner)
            tags.tagtype[block] = 4  # long


def _packed(values: np.ndarray) -> bytes:
    """Pack rows, each sample of whole numbers as the difference to its left neighbour."""
    little = values.astype(values.dtype.newbyteorder('<'))
    if values.dtype.kind != 'f':
        little[:, 1:] -= values[:, :-1]
    return zlib.compress(little.tobytes(), 6)
