"""Where a data set takes its images from: a folder or an LMDB store, one image by its stem."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from ddsa_arch.errors import InputError
from ddsa_arch.files import images, lmdb_store
from ddsa_arch.files.halves import HalfImage, check_even
from ddsa_arch.files.images import ImageFile
from ddsa_arch.files.pair_sources import images_of

TIFF_WIDTH, TIFF_HEIGHT, ORIENTATION = 256, 257, 274  # tags; EXIF data hold the last one too
TURNED = (5, 6, 7, 8)  # orientations that swap width and height


def to_tensor(image: np.ndarray) -> Tensor:
    """Turn ``(H, W, 3)`` uint8 BGR into float32 ``(3, H, W)`` RGB in [0, 1]."""
    rgb = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2RGB)
    return torch.from_numpy(rgb).permute(2, 0, 1).contiguous().float().div_(255)


def header_size(header: Image.Image) -> tuple[int, int]:
    """Return the (H, W) that OpenCV would give an image, of which Pillow has read the header alone."""
    if isinstance(header, TiffImageFile):  # whose size newer versions of Pillow turn by themselves
        width, height = header.tag_v2[TIFF_WIDTH], header.tag_v2[TIFF_HEIGHT]
        orientation = header.tag_v2.get(ORIENTATION)
    else:
        width, height = header.size
        tags = Image.Exif()
        with contextlib.suppress(SyntaxError, struct.error):  # OpenCV passes over broken EXIF data too
            tags.load(header.info.get('exif', b''))  # header.getexif() decodes a whole PNG in search of them
        orientation = tags.get(ORIENTATION)
    return (width, height) if orientation in TURNED else (height, width)


class ImageSource:
    """Images by stem; ``found`` maps each stem to its file or LMDB entry.

    Of folders that hold folders alone, the path from the root stands for the stem, ``a__1`` for ``a/1.png``; of a
    pattern what ``*`` stands for.

    Args:
        root: a folder of images, an ``X.lmdb``, or a pattern of paths with ``*``.
        role: the option's key, for messages.
        cached: keep decoded images in memory.
        files: the images by key, where they are known already.

    Raises:
        InputError: ``root`` is not given, missing or empty.
    """

    def __init__(
        self, root: str | None, role: str, cached: bool = False, files: Mapping[str, ImageFile] | None = None
    ) -> None:
        if not root:
            raise InputError(f'{role}: not given; write the folder or LMDB of the images')
        self.root = str(root)
        self.is_store = files is None and lmdb_store.is_store(root)
        self.decoded: dict[str, np.ndarray] | None = {} if cached else None
        self.found: dict[str, ImageFile | lmdb_store.Entry] = {}
        if files is not None:
            self.found |= files
        elif self.is_store:
            self.found |= lmdb_store.read_entries(root, role)
        else:
            self.found |= images_of(root, role)
        self.identity = lmdb_store.identity_of(root) if self.is_store else None

    def path(self, stem: str) -> str:
        """Return the path of an image's file, or its key in the store or where the file is named otherwise."""
        found = self.found[stem]
        if isinstance(found, HalfImage) and found.stem == stem:
            return str(found.path)
        return str(found) if isinstance(found, Path) and found.stem == stem else stem

    def read(self, stem: str) -> np.ndarray:
        """Read an image as ``(H, W, 3)`` uint8 BGR; a broken one raises InputError."""
        if self.decoded is None:
            return self._decode(stem)
        if stem not in self.decoded:
            self.decoded[stem] = self._decode(stem)
            self.decoded[stem].setflags(write=False)
        return self.decoded[stem]

    def _decode(self, stem: str) -> np.ndarray:
        found = self.found[stem]
        if isinstance(found, Path):
            return images.read_image(found)
        if not isinstance(found, lmdb_store.Entry):
            return found.read() if isinstance(found, HalfImage) else images.decode_image(found.read_bytes(), str(found))
        if lmdb_store.identity_of(self.root) != self.identity:
            raise InputError(f'{self.root}: the store was replaced during the run; run the command again')
        return images.decode_image(lmdb_store.read_value(self.root, found.key), f'{self.root}, {found.key}')

    def content(self, stem: str) -> bytes:
        """The encoded image."""
        found = self.found[stem]
        if isinstance(found, lmdb_store.Entry):
            return lmdb_store.read_value(self.root, found.key)
        return found.read_bytes()

    def size(self, stem: str) -> tuple[int, int]:
        """Return (H, W) without decoding the image."""
        found = self.found[stem]
        if isinstance(found, lmdb_store.Entry):
            return found.shape[:2]
        place = found.path if isinstance(found, HalfImage) else Path(str(found))
        try:
            with Image.open(place) as header:
                height, width = header_size(header)
        except (OSError, SyntaxError) as error:
            raise InputError(
                f'{place}: not a readable image ({error}); replace it, or remove it with its partner'
            ) from error
        if isinstance(found, HalfImage):
            check_even(place, height, width)
            return height, width // 2
        return height, width
