"""Photos that come with scikit-image, whole or in tiles, to render rain on: a data set without download.

The photos lie in scikit-image's wheel, so nothing is fetched. They are few: enough to show that training runs and
learns, not to compare networks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np

from ddsa_arch.errors import InputError, did_you_mean
from ddsa_arch.files.images import read_image, write_image

# No scene stands on both sides. The two views of the motorcycle are one scene.
TRAIN_PHOTOS = ('astronaut', 'coffee', 'motorcycle_left', 'motorcycle_right')
TEST_PHOTOS = ('chelsea', 'rocket')

FILE_NAMES = {
    'astronaut': 'astronaut.png',  # 512 x 512, as rows x columns
    'chelsea': 'chelsea.png',  # 300 x 451, a cat
    'coffee': 'coffee.png',  # 400 x 600
    'motorcycle_left': 'motorcycle_left.png',  # 500 x 741
    'motorcycle_right': 'motorcycle_right.png',
    'rocket': 'rocket.jpg',  # 427 x 640, at dusk
}
TILE_SIZE = 320


def sample_photos(names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Read colour photos of the installed scikit-image, each ``(H, W, 3)`` uint8 BGR, by name.

    Args:
        names: such as ``TRAIN_PHOTOS`` or ``TEST_PHOTOS``; default: both.

    Raises:
        InputError: an unknown name.
        InputError: scikit-image, or a photo in it, is missing.
    """
    folder = _photo_folder()
    photos = {}
    for name in TRAIN_PHOTOS + TEST_PHOTOS if names is None else names:
        if name not in FILE_NAMES:
            raise InputError(f'no sample photo {name!r}{did_you_mean(name, FILE_NAMES)}')
        path = folder / FILE_NAMES[name]
        if not path.is_file():
            raise InputError(
                f'the installed scikit-image has no photo {path}; want one as its wheels carry it: '
                "pip install --force-reinstall 'scikit-image>=0.22', or render rain on photos of your own"
            )
        photos[name] = read_image(path)
    return photos


def _photo_folder() -> Path:
    """Find where scikit-image keeps its photos, without importing it, which would take a while."""
    spec = find_spec('skimage')
    if spec is None or spec.origin is None:
        raise InputError(
            "scikit-image is not installed, and with it no sample photos; pip install 'scikit-image>=0.22'"
        )
    return Path(spec.origin).parent / 'data'


def split_tiles(image: np.ndarray, tile_size: int) -> dict[str, np.ndarray]:
    """Cut an image into the fewest tiles of at most ``tile_size`` on a side that cover it without overlap.

    The tiles are as equal as whole pixels allow: 500 rows at a tile size of 320 become 250 and 250, so that no sliver
    is left over that a training patch does not fit into.

    Args:
        image: ``(H, W, 3)``.
        tile_size: >= 1.

    Returns:
        Views of ``image`` by position, ``'r0c0'`` for row 0 and column 0.
    """
    if tile_size < 1:
        raise InputError(f'the tile size is {tile_size}; want at least 1, or None for whole photos')
    rows, columns = (_cuts(size, tile_size) for size in image.shape[:2])
    return {
        f'r{r}c{c}': image[top:bottom, left:right]
        for r, (top, bottom) in enumerate(pairwise(rows))
        for c, (left, right) in enumerate(pairwise(columns))
    }


def _cuts(size: int, tile_size: int) -> list[int]:
    """Return where the fewest near-equal parts of at most ``tile_size`` begin, and where the last one ends."""
    parts = math.ceil(size / tile_size)
    return [size * i // parts for i in range(parts + 1)]


def write_tiles(
    photos: Mapping[str, np.ndarray], folder: str | Path, tile_size: int | None = TILE_SIZE
) -> dict[str, Path]:
    """Write photos as PNG files without loss: ``folder/NAME.png``, or ``folder/NAME_rXcY.png`` for each tile.

    A photo larger than ``tile_size`` is cut by :func:`split_tiles`: each tile then gets rain of its own, which makes
    more directions and densities to learn from. A file of the same name is replaced, others are left.

    Args:
        photos: ``(H, W, 3)`` uint8 BGR by name, as :func:`sample_photos` gives them.
        folder: made if need be.
        tile_size: the largest side of an image, >= 1; None writes whole photos, as a test set wants them.

    Returns:
        The files by stem, as ``sets.synthesis.render_pairs`` takes them.

    Raises:
        InputError: a name that is no file name, an image of another kind, a tile size below 1. Nothing is written.
    """
    tiles: dict[str, np.ndarray] = {}
    for name, photo in photos.items():
        if not name or Path(name).name != name:
            raise InputError(f'the photo name {name!r} is no file name; leave out folders')
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
            raise InputError(f'the photo {name!r} is {photo.dtype} {photo.shape}; want uint8 (H, W, 3)')
        if tile_size is None or max(photo.shape[:2]) <= tile_size:
            tiles[name] = photo
        else:
            tiles.update((f'{name}_{place}', tile) for place, tile in split_tiles(photo, tile_size).items())
    paths = {name: Path(folder) / f'{name}.png' for name in tiles}
    for name, path in paths.items():
        write_image(path, tiles[name])
    return paths
