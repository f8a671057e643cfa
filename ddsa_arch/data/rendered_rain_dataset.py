"""Pairs whose rain is rendered anew each time a clean photo is drawn."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import cv2
import numpy as np
from basicsr.utils.registry import DATASET_REGISTRY

from ddsa_arch.data.image_source import to_tensor
from ddsa_arch.data.seeded_patches import SeededPatches
from ddsa_arch.errors import InputError
from ddsa_arch.ops.rain import add_rain, rain_style
from ddsa_arch.ops.rain_scenes import SceneRanges, render_scene
from ddsa_arch.registration import register

VARIED = tuple(field.name for field in fields(SceneRanges))


@register(DATASET_REGISTRY)
class RenderedRainDataset(SeededPatches):
    """Clean photos with rain rendered on the fly; an item is ``{lq, gt, lq_path, gt_path}`` as PairedRainDataset's.

    The patch is cut and flipped first, then it gets rain of its own. Patch, flips and rain depend on the seed and on
    the sample's place in the run; outside training a photo has the same rain each time.

    Options:
        dataroot_gt: clean photos: a folder or an ``X.lmdb``.
        dataroot_streaks: streak layers, likewise, one of which is drawn for each sample; drawn streaks if absent.
        style: of the rain, ``light`` or ``heavy``; with streak layers it gives the veil alone.
        streak_scale, streak_density, veil, gain, gamma, jpeg_quality: ranges ``[LOW, HIGH]`` that each sample is drawn
            from, see ``ops.rain_scenes.SceneRanges``.
        drawn_share: share of samples with drawn streaks where there are streak layers too.
        rainless_share: share of samples whose input is their target, so that a network learns to leave things alone.
        structures_share: share of samples with bright structures on both sides: fences, lattices, poles, bars, joints.
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
        given = {name: opt[name] for name in VARIED if opt.get(name) is not None}
        try:
            self.ranges = SceneRanges(**given)
        except InputError as error:
            raise InputError(f'datasets.{opt["phase"]}.{error}') from None

    def item(self, place: int, index: int) -> dict[str, Any]:
        clean = self.targets.read(self.stems[index])
        rng = self.rng(place if self.train else 1 + index)
        if self.train:
            clean = self.patches([clean], rng)[0]
        path = self.targets.path(self.stems[index])
        if self.ranges == SceneRanges():
            rainy = add_rain(clean, self.style, rng, self.layer(rng) if self.streaks else None)
        else:
            scene = render_scene(clean, self.style, self.ranges, rng, self.layer if self.streaks else None)
            rainy, clean = scene.rainy, scene.clean
        return {'lq': to_tensor(rainy), 'gt': to_tensor(clean), 'lq_path': path, 'gt_path': path}

    def layer(self, rng: np.random.Generator) -> np.ndarray:
        """Draw one of the streak layers: grey, uint8."""
        assert self.streaks is not None
        name = self.layers[rng.integers(len(self.layers))]
        return cv2.cvtColor(self.streaks.read(name), cv2.COLOR_BGR2GRAY)
