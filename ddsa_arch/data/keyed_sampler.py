"""A sampler that tells each sample where in the run it stands."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class KeyedSampler(Sampler[int]):
    """Shuffles every epoch by (seed, epoch) and yields ``place * length + index`` instead of ``index``.

    ``place`` counts the samples of the whole run from 1, over all epochs and processes. A data set that draws its
    augmentation from (seed, place) gives the same patches whatever the number of workers, and after a resume.

    Args:
        length: images in the data set.
        num_replicas: processes that train together.
        rank: of this process.
        ratio: how often an epoch goes through the data set.
        seed: of the experiment.
    """

    def __init__(self, length: int, num_replicas: int = 1, rank: int = 0, ratio: int = 1, seed: int = 0) -> None:
        self.length = length
        self.num_replicas = num_replicas
        self.rank = rank
        self.seed = seed
        self.epoch = 0
        self.num_samples = math.ceil(length * ratio / num_replicas)
        self.total = self.num_samples * num_replicas

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed((self.seed << 32) + self.epoch)
        order = torch.randperm(self.total, generator=generator).tolist()
        first_place = 1 + self.epoch * self.total
        for position in range(self.rank, self.total, self.num_replicas):
            yield (first_place + position) * self.length + order[position] % self.length

    def __len__(self) -> int:
        return self.num_samples
