"""The base of this package's data sets, whose patches and flips depend on a sample's place in the run."""

from __future__ import annotations

import abc
import copy
import difflib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ddsa_arch.data.image_source import ImageSource
from ddsa_arch.errors import InputError, did_you_mean
from ddsa_arch.files.images import some
from ddsa_arch.files.key_lists import read_keys
from ddsa_arch.ops.patches import augment, random_crop
from ddsa_arch.ops.seeds import sample_rng


class SeededPatches(Dataset, abc.ABC):
    """The base of the data sets: subclasses set ``stems`` and give an item by place and index.

    Options: ``phase``, ``gt_size``, ``augment``, ``use_hflip``, ``use_vflip``, ``cache_images``, ``exclude_keys``,
    ``seed``; see PairedRainDataset.

    Attributes:
        warnings: what looks wrong about the images, one sentence each.

    Raises:
        InputError: no patch size in training.
    """

    takes_places = True  # indices may be those of KeyedSampler
    stems: list[str]

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__()
        self.opt = copy.deepcopy(opt)
        self.warnings: list[str] = []
        self.train = opt['phase'] == 'train'
        self.seed = opt.get('seed') or 0
        size = opt.get('gt_size')
        if self.train and (not isinstance(size, int) or size < 1):
            raise InputError(f'datasets.train.gt_size: {size!r} is no patch size; the paper has 128 (pixels)')
        self.size: int = size or 0  # 0 outside training, where patches are not cut

    def __len__(self) -> int:
        return len(self.stems)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Go through all images once. Without this method a loop would not end, as no index is too large."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, code: int) -> dict[str, Any]:
        return self.item(*divmod(code, len(self.stems)))

    @abc.abstractmethod
    def item(self, place: int, index: int) -> dict[str, Any]:
        """Return the sample at ``place`` of the run, from 1 up; 0 if BasicSR's own sampler gives an index alone."""

    def source(self, key: str) -> ImageSource:
        """Open the images that an option names."""
        return ImageSource(self.opt.get(key), self.role(key), self.opt.get('cache_images', False))

    def role(self, key: str) -> str:
        """Return an option's full name, for messages."""
        return f'datasets.{self.opt["phase"]}.{key}'

    def leave_out(self, sources: Sequence[ImageSource]) -> None:
        """Take the images that the option ``exclude_keys`` lists out of all sources of a set.

        Raises:
            InputError: the list cannot be read; a key stands in no source; nothing would be left.
        """
        path = self.opt.get('exclude_keys')
        if not path:
            return
        role = self.role('exclude_keys')
        listed = dict.fromkeys(read_keys(path, role))
        known = dict.fromkeys(stem for source in sources for stem in source.found)
        roots = ' and '.join(source.root for source in sources)
        unknown = [key for key in listed if key not in known]
        if unknown:
            near = difflib.get_close_matches(unknown[0], known, n=1)  # of thousands, which would fill the message
            raise InputError(
                f'{role}: {len(unknown)} of {len(listed)} keys in {path} are not in {roots}: {some(unknown)}; '
                f'give the list that was made for this set, or mend these lines{did_you_mean(unknown[0], near)}'
            )
        if len(listed) == len(known):
            raise InputError(
                f'{role}: {path} excludes all {len(known)} images of {roots}; remove the keys that shall stay in'
            )
        for source in sources:
            source.found = {stem: entry for stem, entry in source.found.items() if stem not in listed}

    def rng(self, place: int) -> np.random.Generator:
        """Return the generator of a sample; without a place, Python's, which BasicSR seeds for each worker."""
        return sample_rng(self.seed, place) if place > 0 else np.random.default_rng(random.getrandbits(32))

    def patches(self, images: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
        """Cut the same random window out of all images of a sample, and flip and turn them alike."""
        cut = random_crop(images, self.size, rng)
        flips = self.opt.get('use_hflip', True), self.opt.get('use_vflip', True)
        return augment(cut, rng, self.opt.get('augment', 'flips'), *flips)
