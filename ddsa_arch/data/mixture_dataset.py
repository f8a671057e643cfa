"""Several image sets in one training, each with its share of the samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from ddsa_arch.errors import InputError
from ddsa_arch.ops.seeds import sample_rng
from ddsa_arch.registration import register

CYCLE = 10_000  # samples after which the order of the sets repeats; shares are exact to its inverse
INHERITED = ('gt_size', 'augment', 'use_hflip', 'use_vflip', 'cache_images', 'phase', 'scale', 'seed')


@register(DATASET_REGISTRY)
class MixtureDataset(Dataset):
    """Samples of several sets; an item is that of its set, and ``set``, the set's name.

    The sets take turns as evenly as their weights allow, so each batch has nearly the shares of the whole run. A set is
    gone through in an order of its own, each image once before any comes again. Which set and which image a sample is
    depends on the seed and on the sample's place in the run (see KeyedSampler) alone, so a resumed run and any number
    of loading processes give the same samples. One epoch is as many samples as all sets have images.

    Options:
        sets: by name, the options of each set: ``type`` and what its class takes, and ``weight``, its share of the
            samples over the sum of all weights (default 1). What the mixture says of ``gt_size``, ``augment``,
            ``use_hflip``, ``use_vflip`` and ``cache_images`` holds for sets that do not say it themselves.
        gt_size, augment, use_hflip, use_vflip, cache_images, seed, phase: see PairedRainDataset.

    Attributes:
        shares: the part of the samples that each set has, by name; they sum to 1.
        warnings: those of the sets.

    Raises:
        InputError: no set, a weight that is not above 0, sets whose items differ, or what a set refuses.
    """

    takes_places = True

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__()
        self.opt = opt
        given = opt.get('sets') or {}
        role = f'datasets.{opt["phase"]}.sets'
        if opt['phase'] != 'train':
            raise InputError(f'datasets.{opt["phase"]}.type: a MixtureDataset is for training; name each set by itself')
        if not given:
            raise InputError(f'{role}: a MixtureDataset takes its images from sets, each under a name of its own')
        inherited = {key: opt[key] for key in INHERITED if opt.get(key) is not None}
        self.seed = opt.get('seed') or 0
        # Any: of any registered class
        self.sets: dict[str, Any] = {}
        for name, own in given.items():
            options = {**inherited, **{k: v for k, v in own.items() if k != 'weight' and v is not None}, 'name': name}
            try:
                self.sets[name] = DATASET_REGISTRY.get(options.get('type', 'PairedRainDataset'))(options)
            except InputError as error:
                raise InputError(f'{role}.{name}: {error}') from error
            if not getattr(self.sets[name], 'takes_places', False):
                raise InputError(f'{role}.{name}.type: {options["type"]} draws by chance; take one of this package')
        channels = {name: getattr(part, 'input_channels', 3) for name, part in self.sets.items()}
        if len(set(channels.values())) > 1:
            raise InputError(f'{role}: items of unequal kinds, with {channels} channels; train on one kind')
        sizes = {name: getattr(part, 'size', None) for name, part in self.sets.items()}
        if len(set(sizes.values())) > 1:
            raise InputError(f'{role}: patches of unequal sizes, gt_size {sizes}; one batch holds patches of all sets')
        weights = {name: own.get('weight', 1.0) for name, own in given.items()}
        if min(weights.values()) <= 0:
            raise InputError(f'{role}: weights {weights}; wanted numbers above 0')
        self.input_channels = next(iter(channels.values()))
        self.names = list(self.sets)
        self.turns, self.counts = _turns([weights[name] for name in self.names])
        self.shares = {name: count / len(self.turns) for name, count in zip(self.names, self.counts, strict=True)}
        if not all(self.counts):
            raise InputError(f'{role}: weights {weights}; the smallest is below {1 / CYCLE:g} of their sum')
        self.warnings = [text for part in self.sets.values() for text in getattr(part, 'warnings', ())]
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def __len__(self) -> int:
        return sum(map(len, self.sets.values()))

    def __getitem__(self, code: int) -> dict[str, Any]:
        place, index = divmod(code, len(self))
        return self.item(place, index)

    def item(self, place: int, index: int) -> dict[str, Any]:
        """Return the sample at ``place`` of the run, counted from 1; 0 gives the image that ``index`` names."""
        if place == 0:
            for name in self.names:
                if index < len(self.sets[name]):
                    return self.sets[name].item(0, index) | {'set': name}
                index -= len(self.sets[name])
        number, index = self.drawn(place)
        name = self.names[number]
        return self.sets[name].item(place, index) | {'set': name}

    def drawn(self, place: int) -> tuple[int, int]:
        """Return the number of the set and the index of its image for a place in the run, counted from 1."""
        cycle, turn = divmod(place - 1, len(self.turns))
        number, earlier = self.turns[turn]
        passed, position = divmod(cycle * self.counts[number] + earlier, len(self.sets[self.names[number]]))
        return number, int(self._order(number, passed)[position])

    def _order(self, number: int, passed: int) -> np.ndarray:
        """Return the order of a set's images in one of its passes."""
        key = number, passed
        if key not in self._orders:
            if len(self._orders) > 4 * len(self.names):
                self._orders.clear()
            count = len(self.sets[self.names[number]])
            self._orders[key] = sample_rng(self.seed, number, passed).permutation(count)
        return self._orders[key]


def _turns(weights: list[float]) -> tuple[list[tuple[int, int]], list[int]]:
    """Spread a cycle of samples over sets.

    Args:
        weights: above 0.

    Returns:
        For each sample of the cycle the number of its set, and how many of this set come before it in the cycle; and
        how many of each set are in the cycle.
    """
    counts = [round(CYCLE * weight / sum(weights)) for weight in weights]
    turns = [(number, earlier) for number, count in enumerate(counts) for earlier in range(count)]
    turns.sort(key=lambda turn: ((turn[1] + 0.5) / counts[turn[0]], turn[0]))
    return turns, counts
