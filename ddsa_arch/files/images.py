"""Image files: find them, pair them by stem, read and write them. Arrays are HWC, BGR, uint8."""

from __future__ import annotations

import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Generic, Protocol, TypeVar

import cv2
import numpy as np

from ddsa_arch.errors import InputError
from ddsa_arch.files.atomic import atomic_path
from ddsa_arch.files.decoded_size import check_memory, image_size

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
STORE_SUFFIX = '.lmdb'
SIDES = ('input', 'target')  # of pairs, as `ddsa data prepare` names their folders
LISTED_AT_MOST = 5  # names in one message
# what zipfile raises for an entry that is damaged, encrypted or packed in a way that it does not know
DAMAGED_ENTRY = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError)
DECODED = 9  # bytes for a pixel, with a copy or two
LARGEST_FILE = 1 << 30  # bytes; an archive may claim more than memory holds


def decode_image(data: bytes | memoryview, name: str) -> np.ndarray:
    """Decode an encoded image to ``(H, W, 3)`` uint8 BGR; grey becomes BGR, alpha is dropped.

    Args:
        data: the bytes of a file.
        name: file or key, for the message.

    Raises:
        InputError: the bytes are no image, are cut off, or tell of more pixels than the memory is enough for.
    """
    data = bytes(data)
    if (size := image_size(data)) is not None:
        try:
            check_memory(size, DECODED)
        except InputError as error:
            raise InputError(f'{name}: {error}') from error
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:  # a header that tells of billions of pixels
        image = None
    if image is None or _is_truncated(data):
        kind = 'truncated or not an image' if data else 'empty'
        raise InputError(f'{name}: {kind} ({len(data)} bytes); replace it, or remove it together with its partner')
    return image


def _is_truncated(data: bytes) -> bool:
    """Tell whether a PNG or JPEG lacks its end mark; OpenCV fills the missing rows of such a file with grey.

    The search begins behind a JPEG's headers, as the preview in them has an end mark too, and goes to the end of the
    file, as phones append a film of any length.
    """
    if data.startswith(b'\x89PNG'):
        at = 8
        while (kind := data[at + 4 : at + 8]) and kind != b'IEND':
            at += 12 + int.from_bytes(data[at : at + 4], 'big')
        return kind != b'IEND'
    if data.startswith(b'\xff\xd8\xff'):
        at = 2
        while data[at : at + 1] == b'\xff' and data[at + 1 : at + 2] != b'\xda':  # segments, up to the first scan
            at += 1 if data[at + 1 : at + 2] == b'\xff' else 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
        return data.rfind(b'\xff\xd9', at) < 0
    return False


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file to ``(H, W, 3)`` uint8 BGR.

    Raises:
        InputError: the file is missing, no image, or cut off.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror})') from error
    return decode_image(data, str(path))


def encode_image(image: np.ndarray, suffix: str = '.png') -> bytes:
    """Encode uint8 BGR in the format of ``suffix``: PNG, lossless WebP, JPEG quality 95, TIFF or BMP."""
    options = {'.jpg': [cv2.IMWRITE_JPEG_QUALITY, 95], '.jpeg': [cv2.IMWRITE_JPEG_QUALITY, 95],
               '.webp': [cv2.IMWRITE_WEBP_QUALITY, 101], '.png': [cv2.IMWRITE_PNG_COMPRESSION, 3]}  # fmt: skip
    if suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(f'image format {suffix!r} is not known; use one of {", ".join(IMAGE_SUFFIXES)}')
    try:
        done, data = cv2.imencode(suffix, image, options.get(suffix.lower(), []))
    except cv2.error:  # an image without pixels
        done = False
    if not done:
        raise InputError(f'an image of shape {image.shape} cannot be encoded as {suffix}')
    return data.tobytes()


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write uint8 BGR in the format of the suffix, whole or not at all; parent folders are made."""
    data = encode_image(image, Path(path).suffix)
    with atomic_path(path) as part:
        part.write_bytes(data)


@dataclass(frozen=True)
class ZippedImage:
    """A file in a zip archive, read without unpacking; threads may share the archive."""

    archive: zipfile.ZipFile
    info: zipfile.ZipInfo

    def __str__(self) -> str:
        return f'{self.archive.filename}, {self.info.filename}'

    @property
    def path(self) -> PurePosixPath:
        """Return the path of the file within the archive; some tools of Windows write backslashes."""
        return PurePosixPath(self.info.filename.replace('\\', '/'))

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def stem(self) -> str:
        return self.path.stem

    @property
    def suffix(self) -> str:
        return self.path.suffix

    def read_bytes(self) -> bytes:
        """Return the unpacked bytes, checked against the archive's CRC.

        Raises:
            InputError: the archive is damaged here.
        """
        if self.info.file_size > LARGEST_FILE:
            raise InputError(f'{self}: {self.info.file_size} bytes are no image; remove it from the archive')
        try:
            return self.archive.read(self.info)
        except DAMAGED_ENTRY as error:
            raise InputError(f'{self}: damaged ({error}); download the archive again') from error


class MadeImage(Protocol):
    """An image that is made of a file, such as a half of it, and read like one."""

    @property
    def name(self) -> str: ...

    @property
    def stem(self) -> str: ...

    @property
    def suffix(self) -> str: ...

    def read_bytes(self) -> bytes:
        """Return the image in the format of its suffix."""
        ...

    def read(self) -> np.ndarray:
        """Return its pixels, ``(H, W, 3)`` uint8 BGR."""
        ...

    def byte_size(self) -> int:
        """Return a number of bytes that the encoded image does not exceed."""
        ...


ImageFile = Path | ZippedImage | MadeImage
File = TypeVar('File', bound=ImageFile)


def byte_size(file: ImageFile) -> int:
    """The size of a file in bytes, without reading it; of an image that is made of a file, what it does not exceed."""
    if isinstance(file, ZippedImage):
        return file.info.file_size
    if not isinstance(file, Path):
        return file.byte_size()
    try:
        return file.stat().st_size
    except OSError as error:
        raise InputError(f'{file}: cannot be read ({error.strerror})') from error


@dataclass(frozen=True)
class Sorted(Generic[File]):
    """Files sorted by stem, in natural order: images, two of one stem, and what is no image."""

    images: dict[str, File]
    doubles: list[tuple[File, File]]
    others: list[File]


def sort_files(files: Iterable[File]) -> Sorted[File]:
    """Tell images from other files, by their suffixes. Hidden files are left out."""
    found: Sorted[File] = Sorted({}, [], [])
    for file in sorted(files, key=lambda f: (natural_key(f.name), f.name)):
        if file.name.startswith('.'):
            continue
        if file.suffix.lower() not in IMAGE_SUFFIXES:
            found.others.append(file)
            continue
        if file.stem in found.images:
            found.doubles.append((found.images[file.stem], file))
        found.images[file.stem] = file
    return found


def images_by_stem(folder: str | Path, role: str = 'folder') -> dict[str, Path]:
    """The image files of a folder by their name without suffix, in natural order; other files are left alone.

    Args:
        folder: not searched recursively.
        role: what the folder is to the user (an option's key), for the message.

    Raises:
        InputError: no such folder, no image in it, or two images of one stem.
    """
    found = sort_files(files_in(folder, role))
    if found.doubles:
        names = [f'{first.name} and {second.name}' for first, second in found.doubles]
        raise InputError(f'{role}: {folder} has two images of one name: {some(names)}; keep one of each')
    if not found.images:
        raise InputError(f'{role}: no image in {folder} (looked for {", ".join(IMAGE_SUFFIXES)}){inside(folder, role)}')
    return found.images


def inside(folder: str | Path, role: str) -> str:
    """A hint at a folder or store in one that has no images; ``input`` holds rainy ones, ``target`` clean ones."""
    wanted = 'target' if role.endswith('_gt') else 'input'
    with os.scandir(folder) as entries:
        inner = [entry.name for entry in entries if os.path.isdir(entry.path)]
    likely = sorted(name for name in inner if name.endswith(STORE_SUFFIX) or name.split('.')[0] in SIDES)
    likely.sort(key=lambda name: (not name.startswith(wanted), not name.endswith(STORE_SUFFIX)))
    return f'; did you mean {os.path.join(folder, likely[0])}?' if likely else ''


def files_in(folder: str | Path, role: str = 'folder') -> list[Path]:
    """The files of a folder, not of those in it.

    Raises:
        InputError: no such folder.
    """
    if not os.path.isdir(folder):  # False too for links in a circle
        is_file = os.path.isfile(folder)
        raise InputError(f'{role}: no folder {folder}{", which is a file" if is_file else ""}')
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if os.path.isfile(entry.path)]
    except OSError as error:
        raise InputError(f'{role}: {folder} cannot be read ({error.strerror})') from error


def check_partners(
    lonely_inputs: Sequence[str], lonely_targets: Sequence[str], input_name: str, target_name: str, told: str
) -> None:
    """Check that every image has a partner.

    Args:
        lonely_inputs: names of rainy images without one.
        lonely_targets: names of clean images without one.
        input_name: of the rainy side.
        target_name: of the clean side.
        told: how pairs match.

    Raises:
        InputError: naming the images without a partner, and on which side they are missing.
    """
    if not lonely_inputs and not lonely_targets:
        return
    parts = []
    if lonely_inputs:
        names = some(sorted(lonely_inputs))
        parts.append(f'{len(lonely_inputs)} of {input_name} have no partner in {target_name}: {names}')
    if lonely_targets:
        names = some(sorted(lonely_targets))
        parts.append(f'{len(lonely_targets)} of {target_name} have no partner in {input_name}: {names}')
    raise InputError(f'{"; ".join(parts)}. Add the missing images or remove the lonely ones (pairs match by {told})')


def some(names: Iterable[str]) -> str:
    """Return the first names of a list as text, and how many more there are."""
    names = list(names)
    more = f' and {len(names) - LISTED_AT_MOST} more' if len(names) > LISTED_AT_MOST else ''
    return ', '.join(names[:LISTED_AT_MOST]) + more


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Return a key that sorts names as people count: norain-2 before norain-10."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r'(\d+)', name) if part]
