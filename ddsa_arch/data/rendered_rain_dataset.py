"""Pairs whose rain is rendered anew each time a clean photo is drawn."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import cv2
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from ddsa_arch.data.image_source import ImageSource, augmentation_rng, to_tensor
from ddsa_arch.ops.errors import InputError
from ddsa_arch.ops.patches import random_crop, random_flips
from ddsa_arch.ops.rain import add_rain, rain_style


@DATASET_REGISTRY.register()
class RenderedRainDataset(Dataset):
    """Clean photos with rain rendered on the fly; an item is ``{lq, gt, lq_path, gt_path}`` as PairedRainDataset's.

    The patch is cut and flipped first, then it gets rain of its own. Patch, flips and rain depend on the seed and on
    the sample's place in the run; outside training a photo has the same rain each time.

    Options:
        dataroot_gt: clean photos: a folder or an ``X.lmdb``.
        dataroot_streaks: streak layers, likewise, one of which is drawn for each sample; drawn streaks if absent.
        style: of the rain, ``light`` or ``heavy``; with streak layers it gives the veil alone.
        gt_size, use_hflip, use_vflip, cache_images, seed, phase: as PairedRainDataset's.

    Raises:
        InputError: a missing folder, an unknown style, no patch size; at access a broken image.
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
        self.style = rain_style(opt.get('style') or 'light')
        self.targets = ImageSource(opt.get('dataroot_gt'), f'{label}.dataroot_gt', cached)
        self.streaks = None
        if opt.get('dataroot_streaks'):
            self.streaks = ImageSource(opt['dataroot_streaks'], f'{label}.dataroot_streaks', cached)
        self.stems = list(self.targets.found)

    def __len__(self) -> int:
        return len(self.stems)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Once through all photos."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, code: int) -> dict[str, Any]:
        place, index = divmod(code, len(self.stems))
        stem = self.stems[index]
        clean = self.targets.read(stem)
        if self.train:
            rng = augmentation_rng(self.seed, place)
            patches = random_crop([clean], self.size, rng)
            clean = random_flips(patches, rng, self.opt.get('use_hflip', True), self.opt.get('use_vflip', True))[0]
        else:
            rng = augmentation_rng(self.seed, 1 + index)
        layer = None
        if self.streaks:
            names = list(self.streaks.found)
            layer = cv2.cvtColor(self.streaks.read(names[rng.integers(len(names))]), cv2.COLOR_BGR2GRAY)
        rainy = add_rain(clean, self.style, rng, layer)
        path = self.targets.path(stem)
        return {'lq': to_tensor(rainy), 'gt': to_tensor(clean), 'lq_path': path, 'gt_path': path}
