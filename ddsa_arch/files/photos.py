"""People's photos: read with all that belongs to them, and written so that nothing of it is lost."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

from ddsa_arch.errors import InputError
from ddsa_arch.files.atomic import atomic_path
from ddsa_arch.files.photo_decoding import Photo, decode_photo
from ddsa_arch.files.photo_encoding import encode_photo
from ddsa_arch.files.photo_formats import other_format

__all__ = ['Photo', 'encode_photo', 'read_file', 'read_photo', 'write_photo']


def read_photo(path: str | Path) -> Photo:
    """Read an image file, whatever its name says.

    Raises:
        InputError: it is missing, empty, no file, no image of a known kind, cut off, of a kind that is not taken, or
            too large for the memory.
    """
    data = read_file(path)
    try:
        photo, kind = decode_photo(data)
    except InputError as error:
        raise InputError(f'{path}: {error}') from error
    if named := other_format(path, kind):
        photo = replace(photo, notes=(*photo.notes, f'the name says {named}, but the content is {kind}'))
    return photo


def read_file(path: str | Path) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        InputError: it is missing, empty, no regular file (a pipe would be waited for), or may not be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(f'{path}: no regular file, such as a folder, a pipe or a device')
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror})') from error
    if not data:
        raise InputError(f'{path}: empty (0 bytes)')
    return data


def write_photo(path: str | Path, photo: Photo) -> tuple[str, ...]:
    """Write a photo in the format of the suffix, whole or not at all; parent folders are made.

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
