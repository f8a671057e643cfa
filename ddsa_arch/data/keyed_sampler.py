"""A sampler that tells each sample where in the run it stands."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch.utils.data import Sampler

from ddsa_arch.ops.seeds import sample_rng


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
        self.skipped_epoch, self.skipped = 0, 0
        self.num_samples = math.ceil(length * ratio / num_replicas)
        self.total = self.num_samples * num_replicas

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def resume(self, epoch: int, samples: int) -> None:
        """Leave out the first ``samples`` of this process in ``epoch``, which a run before this one has seen."""
        self.skipped_epoch, self.skipped = epoch, samples

    def __iter__(self) -> Iterator[int]:
        order = sample_rng(self.seed, self.epoch).permutation(self.total).tolist()
        first_place = 1 + self.epoch * self.total
        skipped = self.skipped if self.epoch == self.skipped_epoch else 0
        for position in range(self.rank + skipped * self.num_replicas, self.total, self.num_replicas):
            yield (first_place + position) * self.length + order[position] % self.length

    def __len__(self) -> int:
        return self.num_samples
