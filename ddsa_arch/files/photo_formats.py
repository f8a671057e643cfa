"""The formats of photos: which suffixes are read, and in which format a photo of each is written."""

from __future__ import annotations

from pathlib import Path

# Pillow's name of the format that is written under a suffix
WRITTEN = {
    '.bmp': 'BMP', '.jpeg': 'JPEG', '.jpg': 'JPEG', '.png': 'PNG', '.tif': 'TIFF', '.tiff': 'TIFF', '.webp': 'WEBP',
    '.avif': 'AVIF', '.heic': 'HEIF', '.heif': 'HEIF', '.jfif': 'JPEG', '.jp2': 'JPEG2000', '.jpe': 'JPEG',
    '.jxl': 'JXL', '.pgm': 'PPM', '.pnm': 'PPM', '.ppm': 'PPM', '.tga': 'TGA',
}  # fmt: skip
# under which suffix the result lies for a photo whose own format cannot hold it
WRITTEN_AS = {
    '.apng': '.png', '.dib': '.bmp', '.gif': '.png', '.hif': '.heic', '.ico': '.png', '.j2c': '.jp2', '.j2k': '.jp2',
    '.jpf': '.jp2', '.jpx': '.jp2', '.mpo': '.jpg', '.pbm': '.pgm',
}  # fmt: skip
PHOTO_SUFFIXES = (*WRITTEN, *WRITTEN_AS)
WRITTEN_SUFFIXES = tuple(WRITTEN)
# of which a photo is told to have another format than its name says; a name may stand for several
READ_AS = {
    'JPEG': ('JPEG', 'MPO'), 'HEIF': ('HEIF', 'AVIF'), 'AVIF': ('AVIF', 'HEIF'), 'BMP': ('BMP', 'DIB'),
}  # fmt: skip
PLUGIN_NAMES = {'HEIF': 'HEIC', 'AVIF': 'AVIF', 'JXL': 'JPEG XL'}  # as pillow_images knows them


def written_suffix(suffix: str) -> str:
    """Return the suffix of the result for a photo with a suffix; it is the same wherever its format can be written."""
    return WRITTEN_AS.get(suffix.lower(), suffix)


def other_format(name: str | Path, kind: str) -> str | None:
    """Return the format that a file's name says, if its content is of another one.

    Args:
        name: of the file.
        kind: Pillow's name of the format of the content.
    """
    suffix = Path(name).suffix.lower()
    named = WRITTEN.get(suffix) or {'.gif': 'GIF', '.ico': 'ICO', '.apng': 'PNG', '.mpo': 'JPEG'}.get(
        suffix, WRITTEN.get(WRITTEN_AS.get(suffix, ''), '')
    )
    return named if named and kind and kind not in READ_AS.get(named, (named,)) else None
