"""Pairs of a rainy and a clean image, from LMDB stores or folders."""

from __future__ import annotations

import contextlib
import copy
import random
import struct
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
from basicsr.utils.registry import DATASET_REGISTRY
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ddsa_arch.ops import images, lmdb_store
from ddsa_arch.ops.errors import InputError
from ddsa_arch.ops.patches import random_crop, random_flips
from ddsa_arch.ops.seeds import sample_rng

TIFF_WIDTH, TIFF_HEIGHT, ORIENTATION = 256, 257, 274  # tags; EXIF data hold the last one too
TURNED = (5, 6, 7, 8)  # orientations that swap width and height


@DATASET_REGISTRY.register()
class PairedRainDataset(Dataset):
    """Rainy and clean images paired by stem; an item is ``{lq, gt, lq_path, gt_path}``.

    ``lq`` and ``gt`` are float32 ``(3, H, W)``, RGB, [0, 1]; ``lq_path`` and ``gt_path`` the files or LMDB keys.
    In training, a random window of ``gt_size`` (extended by reflection where the image is smaller) and random
    flips, the same for both; elsewhere the whole image.

    What is drawn for a sample depends on the seed and on the sample's place in the run (see KeyedSampler), never on
    the worker that loads it. A plain index, as BasicSR's own sampler gives it, draws from Python's global generator,
    which BasicSR seeds for each worker.

    Options:
        dataroot_lq: rainy images: a folder (suffixes may differ between the sides) or an ``X.lmdb``.
        dataroot_gt: clean images, likewise. May be absent outside training: items then hold no ``gt``.
        gt_size: side of a training patch in pixels.
        use_hflip: random horizontal flips in training.
        use_vflip: random vertical flips in training.
        cache_images: keep decoded images in memory, for sets that fit; each loading process keeps its own.
        seed: of the augmentation; the option loader sets it to ``manual_seed``.
        phase: ``train``, ``val`` or ``test``; BasicSR sets it.

    Raises:
        InputError: missing folder or LMDB, an image without partner, unequal sizes; at access a broken image.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__()
        self.opt = copy.deepcopy(opt)
        self.train = opt['phase'] == 'train'
        self.seed = opt.get('seed') or 0
        self.size = opt.get('gt_size')
        if self.train and (not isinstance(self.size, int) or self.size < 1):
            raise InputError(f'datasets.train.gt_size: {self.size!r} is no patch size; the paper has 128 (pixels)')
        label = f'datasets.{opt["phase"]}'
        cached = opt.get('cache_images', False)
        self.inputs = _Side(opt.get('dataroot_lq'), f'{label}.dataroot_lq', cached)
        self.targets = None
        if opt.get('dataroot_gt') or self.train:
            self.targets = _Side(opt.get('dataroot_gt'), f'{label}.dataroot_gt', cached)
            images.check_partners(self.inputs.found, self.targets.found, self.inputs.root, self.targets.root)
            self._check_sizes()
        self.stems = list(self.inputs.found)

    def _check_sizes(self) -> None:
        unequal = [
            f'{stem} ({size[1]} x {size[0]} and {other[1]} x {other[0]})'
            for stem in self.inputs.found
            if (size := self.inputs.size(stem)) != (other := self.targets.size(stem))
        ]
        if unequal:
            raise InputError(
                f'{len(unequal)} pairs of {self.inputs.root} and {self.targets.root} have unequal sizes: '
                f'{images.some(unequal)}; replace or remove these pairs'
            )

    def __len__(self) -> int:
        return len(self.stems)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Once through all images: without it a loop would not end, as no code is too large."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, code: int) -> dict[str, Any]:
        place, index = divmod(code, len(self.stems))
        stem = self.stems[index]
        sides = {'lq': self.inputs} | ({'gt': self.targets} if self.targets else {})
        pictures = [side.read(stem) for side in sides.values()]
        if len({picture.shape for picture in pictures}) > 1:
            raise InputError(f'{stem}: input and target have unequal sizes; replace or remove this pair')
        if self.train:
            rng = sample_rng(self.seed, place) if place > 0 else np.random.default_rng(random.getrandbits(32))
            pictures = random_crop(pictures, self.size, rng)
            pictures = random_flips(
                pictures, rng, self.opt.get('use_hflip', True), self.opt.get('use_vflip', True)
            )  # fmt: skip
        item = {name: to_tensor(picture) for name, picture in zip(sides, pictures, strict=True)}
        return item | {f'{name}_path': side.path(stem) for name, side in sides.items()}


def to_tensor(image: np.ndarray) -> Tensor:
    """``(H, W, 3)`` uint8 BGR to float32 ``(3, H, W)`` RGB in [0, 1]."""
    rgb = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2RGB)
    return torch.from_numpy(rgb).permute(2, 0, 1).contiguous().float().div_(255)


def header_size(header: Image.Image) -> tuple[int, int]:
    """(H, W) that OpenCV gives an image, of which Pillow has read the header alone."""
    width, height = header.size
    tags = Image.Exif()
    if header.format == 'TIFF':  # whose size newer versions of Pillow turn by themselves
        tags = header.tag_v2
        width, height = tags[TIFF_WIDTH], tags[TIFF_HEIGHT]
    else:
        with contextlib.suppress(SyntaxError, struct.error):  # OpenCV passes over broken EXIF data too
            tags.load(header.info.get('exif', b''))  # header.getexif() decodes a whole PNG in search of them
    return (width, height) if tags.get(ORIENTATION) in TURNED else (height, width)


class _Side:
    """The images of one side of the pairs: ``found`` maps each stem to its file or LMDB entry."""

    def __init__(self, root: str | None, role: str, cached: bool = False) -> None:
        if not root:
            raise InputError(f'{role}: not given; write the folder or LMDB of the images')
        self.root = str(root)
        self.is_store = lmdb_store.is_store(root)
        self.decoded: dict[str, np.ndarray] | None = {} if cached else None
        find = lmdb_store.read_entries if self.is_store else images.images_by_stem
        self.found = find(root, role)

    def path(self, stem: str) -> str:
        return stem if self.is_store else str(self.found[stem])

    def read(self, stem: str) -> np.ndarray:
        if self.decoded is None:
            return self._decode(stem)
        if stem not in self.decoded:
            self.decoded[stem] = self._decode(stem)
            self.decoded[stem].setflags(write=False)
        return self.decoded[stem]

    def _decode(self, stem: str) -> np.ndarray:
        if not self.is_store:
            return images.read_image(self.found[stem])
        return images.decode_image(lmdb_store.read_value(self.root, stem), f'{self.root}, {stem}')

    def size(self, stem: str) -> tuple[int, int]:
        """(H, W) without decoding the image."""
        if self.is_store:
            return self.found[stem].shape[:2]
        try:
            with Image.open(self.found[stem]) as header:
                return header_size(header)
        except (OSError, SyntaxError) as error:
            raise InputError(
                f'{self.found[stem]}: not a readable image ({error}); replace it, or remove it with its partner'
            ) from error
