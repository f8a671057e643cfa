"""What an image file tells about a photo besides its pixels: camera, place, profile, resolution, texts."""

from __future__ import annotations

import re
import struct
from typing import Any

from PIL import Image

from ddsa_arch.files.tiffs import ORIENTATION, camera_tags

XMP_ORIENTATION = re.compile(rb'tiff:Orientation\s*=\s*["\']\d["\']|<tiff:Orientation>\s*\d\s*</tiff:Orientation>')
XMP_TEXT = 'XML:com.adobe.xmp'
# texts by which ImageMagick writes into a PNG what has a chunk of its own today
RAW_PROFILE = 'Raw profile type '
UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError, struct.error, OverflowError,
    ZeroDivisionError, RuntimeError,
)  # fmt: skip


def pillow_metadata(image: Image.Image) -> tuple[dict[str, Any], int, list[str]]:
    """Return the metadata of an image that can be written again, without its orientation.

    Returns:
        Pillow's keywords for saving, the orientation as EXIF numbers it, and notes about what cannot be read.
    """
    kept: dict[str, Any] = {}
    notes: list[str] = []
    turn = 1
    try:
        exif = image.getexif()
        turn = int(exif.get(ORIENTATION, 1))
        exif.pop(ORIENTATION, None)
        if image.format == 'TIFF':  # its layout is no metadata
            exif = camera_tags(exif)
        if len(exif):
            kept['exif'] = exif.tobytes()
    except UNREADABLE:
        notes.append('its EXIF is damaged and left out')
    for key in ('icc_profile', 'dpi', 'comment'):
        if image.info.get(key):
            kept[key] = image.info[key]
    xmp = image.info.get('xmp') or image.info.get(XMP_TEXT)
    if xmp:
        kept['xmp'] = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    texts = getattr(image, 'text', {}) if image.format == 'PNG' else {}
    text = {k: str(v) for k, v in texts.items() if k != XMP_TEXT and not k.startswith(RAW_PROFILE)}
    return without_orientation(kept) | ({'text': text} if text else {}), turn, notes


def without_orientation(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata whose XMP does not tell how the picture is turned, as it is upright now."""
    if 'xmp' not in metadata:
        return metadata
    return metadata | {'xmp': XMP_ORIENTATION.sub(b'', metadata['xmp'])}
