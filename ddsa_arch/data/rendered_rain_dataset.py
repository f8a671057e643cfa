"""Pairs whose rain is rendered anew each time a clean photo is drawn."""

from __future__ import annotations

from typing import Any

import cv2
from basicsr.utils.registry import DATASET_REGISTRY

from ddsa_arch.data.image_source import to_tensor
from ddsa_arch.data.seeded_patches import SeededPatches
from ddsa_arch.ops.rain import add_rain, rain_style
from ddsa_arch.registration import register


@register(DATASET_REGISTRY)
class RenderedRainDataset(SeededPatches):
    """Clean photos with rain rendered on the fly; an item is ``{lq, gt, lq_path, gt_path}`` as PairedRainDataset's.

    The patch is cut and flipped first, then it gets rain of its own. Patch, flips and rain depend on the seed and on
    the sample's place in the run; outside training a photo has the same rain each time.

    Options:
        dataroot_gt: clean photos: a folder or an ``X.lmdb``.
        dataroot_streaks: streak layers, likewise, one of which is drawn for each sample; drawn streaks if absent.
        style: of the rain, ``light`` or ``heavy``; with streak layers it gives the veil alone.
        gt_size, use_hflip, use_vflip, cache_images, exclude_keys, seed, phase: as PairedRainDataset's.

    Raises:
        InputError: a missing folder, an unknown style, no patch size, a list of other images; at access a broken
            image.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        self.style = rain_style(opt.get('style') or 'light')
        self.targets = self.source('dataroot_gt')
        self.leave_out([self.targets])
        self.streaks = self.source('dataroot_streaks') if opt.get('dataroot_streaks') else None
        self.layers = list(self.streaks.found) if self.streaks else []
        self.stems = list(self.targets.found)

    def item(self, place: int, index: int) -> dict[str, Any]:
        clean = self.targets.read(self.stems[index])
        rng = self.rng(place if self.train else 1 + index)
        if self.train:
            clean = self.patches([clean], rng)[0]
        layer = None
        if self.streaks:
            name = self.layers[rng.integers(len(self.layers))]
            layer = cv2.cvtColor(self.streaks.read(name), cv2.COLOR_BGR2GRAY)
        rainy = add_rain(clean, self.style, rng, layer)
        path = self.targets.path(self.stems[index])
        return {'lq': to_tensor(rainy), 'gt': to_tensor(clean), 'lq_path': path, 'gt_path': path}
