"""Pairs of a rainy and a clean image, from LMDB stores or folders."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from ddsa_arch.data.image_source import ImageSource, augmentation_rng, to_tensor
from ddsa_arch.ops import images
from ddsa_arch.ops.errors import InputError
from ddsa_arch.ops.patches import random_crop, random_flips


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

    takes_places = True  # indices may be those of KeyedSampler

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
        self.inputs = ImageSource(opt.get('dataroot_lq'), f'{label}.dataroot_lq', cached)
        self.targets = None
        if opt.get('dataroot_gt') or self.train:
            self.targets = ImageSource(opt.get('dataroot_gt'), f'{label}.dataroot_gt', cached)
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
            rng = augmentation_rng(self.seed, place)
            pictures = random_crop(pictures, self.size, rng)
            pictures = random_flips(
                pictures, rng, self.opt.get('use_hflip', True), self.opt.get('use_vflip', True)
            )  # fmt: skip
        item = {name: to_tensor(picture) for name, picture in zip(sides, pictures, strict=True)}
        return item | {f'{name}_path': side.path(stem) for name, side in sides.items()}
