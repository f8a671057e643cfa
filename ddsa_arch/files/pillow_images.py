"""Pillow's images of every mode as arrays, and the formats that Pillow reads by itself or with a plug-in."""

from __future__ import annotations

import importlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError, features

from ddsa_arch.errors import InputError
from ddsa_arch.files.decoded_size import check_memory, without_pixel_limit

BAND = 2**22  # pixels that are copied at a time
DECODED = 14  # bytes for a pixel: Pillow's own, the array, the result, and Pillow's own again for writing
DEEPER = 24  # the same with 16 bits for a channel
PLAIN = ('L', 'LA', 'RGB', 'RGBA')
GREY_16 = ('I;16', 'I;16L', 'I;16B', 'I;16N')
HEIC_BRANDS = (b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1')
TWELVE_BITS = re.compile(rb'\xff[\xc0-\xc3]\0[\x0b\x0e\x11\x14]\x0c')  # start of a JPEG's frame
AVIF_BRANDS = (b'avif', b'avis')
JXL_STARTS = (b'\xff\x0a', b'\0\0\0\x0cJXL \r\n\x87\n')
PLUGINS = {'HEIC': ('pillow_heif', 'pillow-heif'), 'JPEG XL': ('pillow_jxl', 'pillow-jxl-plugin')}


def extra_kind(data: bytes) -> str | None:
    """Return the name of a format that not every Pillow reads, by the first bytes of a file; None for all others."""
    if data.startswith(JXL_STARTS):
        return 'JPEG XL'
    if data[4:8] != b'ftyp':
        return None
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, min(int.from_bytes(data[:4], 'big'), 256), 4))]
    if any(brand in AVIF_BRANDS for brand in brands):
        return 'AVIF'
    return 'HEIC' if any(brand in HEIC_BRANDS for brand in brands) else None


def load_plugin(kind: str) -> None:
    """Make Pillow know HEIC, AVIF or JPEG XL.

    Raises:
        InputError: the package for it is not installed.
    """
    if kind == 'AVIF':
        if features.check('avif'):
            return
        raise InputError(f"AVIF needs a newer Pillow: pip install 'ddsa_arch[photos]' (found {Image.__version__})")
    module, package = PLUGINS[kind]
    try:
        plugin = importlib.import_module(module)  # which registers itself, or is told to
    except ImportError as error:
        raise InputError(f"{kind} needs the package {package}: pip install 'ddsa_arch[photos]'") from error
    if module == 'pillow_heif':
        plugin.register_heif_opener()


@contextmanager
def opened(data: bytes) -> Iterator[Image.Image]:
    """Open the bytes of an image with Pillow, of any size that the memory is enough for.

    Raises:
        InputError: the memory is not enough, or a package is missing.
        UnidentifiedImageError: no known kind.
    """
    if kind := extra_kind(data):
        load_plugin(kind)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of odd EXIF and the like
        try:
            with without_pixel_limit():
                image = Image.open(io.BytesIO(data))
        except UnidentifiedImageError:
            if data.startswith(b'\xff\xd8\xff') and TWELVE_BITS.search(data):
                raise InputError('a JPEG of 12 bits for a channel is not taken; save 8 bits, or a PNG') from None
            raise
        with image:
            check_memory(image.size, DECODED)
            yield image


def pixels_of(image: Image.Image) -> np.ndarray:
    """Return the pixels of an image, copied in bands, as Pillow's own way takes twice the memory."""
    if image.width * image.height <= BAND:
        return np.asarray(image)
    image.load()
    rows = max(1, BAND // image.width)
    first = np.asarray(image.crop((0, 0, image.width, 1)))
    out = np.empty((image.height, *first.shape[1:]), first.dtype)
    for top in range(0, image.height, rows):
        bottom = min(image.height, top + rows)
        out[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return out


def plain_mode(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Convert an image of 8 bits to L, LA, RGB or RGBA; also return a note if that may change the picture."""
    if image.mode in PLAIN:
        if image.mode in ('L', 'RGB') and image.has_transparency_data:  # one colour
            return image.convert('LA' if image.mode == 'L' else 'RGBA'), []
        return image, []
    if image.mode == '1':
        return image.convert('L'), []
    if image.mode == 'La':
        return image.convert('LA'), []
    if image.mode in ('P', 'PA', 'RGBa'):
        return image.convert('RGBA' if image.has_transparency_data else 'RGB'), []
    profile = image.info.pop('icc_profile', None)
    note = [f'{image.mode} became RGB']
    if image.mode == 'CMYK' and profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile('sRGB'), outputMode='RGB')
        except (ImageCms.PyCMSError, OSError):
            converted = None  # a broken profile
        if converted is not None:
            return converted, note
    return image.convert('RGB'), note


def as_array(image: Image.Image) -> tuple[np.ndarray, str]:
    """Return the pixels of an image of any mode for a network, and the mode of a result with such pixels.

    The mode stays if it is L, LA, RGB, RGBA, I;16, I (0 to 65535) or F ([0, 1]); 1 becomes L; palettes, HSV, YCbCr,
    LAB and CMYK become RGB, or RGBA if they have transparency.

    Raises:
        InputError: I or F with values outside their range, or no pixels.
    """
    if not image.width or not image.height:
        raise InputError(f'an image of {image.width} x {image.height} pixels is none')
    if image.mode in GREY_16:
        return np.asarray(image).astype(np.uint16), image.mode
    if image.mode == 'F':
        return np.asarray(image), 'F'
    if image.mode == 'I':
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(
                f'an image of mode I is in 0 to 65535; this one goes from {values.min()} to {values.max()}'
            )
        return values.astype(np.uint16), 'I'
    plain, _ = plain_mode(image.copy() if image.mode == 'CMYK' else image)  # whose profile is taken out
    return pixels_of(plain), plain.mode


def from_array(pixels: np.ndarray, mode: str, like: Image.Image) -> Image.Image:
    """Return an image with new pixels, of the mode that ``as_array`` told, with what belongs to the old image."""
    if mode == 'I':
        image = Image.fromarray(pixels.astype(np.int32))
    elif mode in GREY_16[1:]:
        image = Image.frombytes(mode, like.size, pixels.astype('>u2' if mode == 'I;16B' else '<u2').tobytes())
    else:
        image = Image.fromarray(pixels)
    gone = ('transparency', 'icc_profile') if like.mode == 'CMYK' else ('transparency',)
    image.info = {key: value for key, value in like.info.items() if key not in gone}
    return image
