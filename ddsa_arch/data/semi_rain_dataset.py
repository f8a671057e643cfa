"""Pairs of a rainy and a clean image beside real rainy photos that have no clean partner."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from basicsr.utils.registry import DATASET_REGISTRY

from ddsa_arch.data.image_source import to_tensor
from ddsa_arch.data.paired_rain_dataset import PairedRainDataset
from ddsa_arch.registration import register


@register(DATASET_REGISTRY)
class SemiRainDataset(PairedRainDataset):
    """PairedRainDataset whose items carry a real photo too, for training as SEMI does (1807.11078).

    In training ``lq`` is ``(6, size, size)``: the rainy patch of the pair, then a patch of a photo drawn at random, cut
    and flipped by itself. What is drawn depends on the seed and on the sample's place in the run, as there. Outside
    training it is PairedRainDataset.

    Options:
        dataroot_real: rainy photos without targets, for training: a folder or an ``X.lmdb``. ``exclude_keys`` does not
            apply to them.
        others: PairedRainDataset's.

    Raises:
        InputError: as PairedRainDataset.
    """

    input_channels = 6  # of ``lq`` in training

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        if self.train:
            self.real = self.source('dataroot_real')
            self.photos = list(self.real.found)

    def item(self, place: int, index: int) -> dict[str, Any]:
        item = super().item(place, index)
        if self.train:
            # a generator of its own: from the pair's, where the pair is cut would tell which photo is drawn
            rng = np.random.default_rng(self.rng(place).integers(2**63))
            photo = self.real.read(self.photos[rng.integers(len(self.photos))])
            item['lq'] = torch.cat([item['lq'], to_tensor(self.patches([photo], rng)[0])])
        return item
