"""Progressive training: small patches in large batches first, large patches in small batches last."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from ddsa_arch.errors import InputError
from ddsa_arch.ops.seeds import sample_rng

STREAM = 1  # tells these draws from others of the same iteration


class ProgressivePatches:
    """Cuts each batch to the patch and batch size of its stage (Restormer, https://arxiv.org/abs/2111.09881).

    The loader gives batches of the largest size. Of these a random part is kept, and one random window, the same for
    all images of the batch, is cut out of them, as Restormer's training has it.

    Args:
        iterations: steps of each stage.
        patch_sizes: side of the patch in each stage, in pixels.
        batch_sizes: patches in a batch of each stage.
        seed: with the iteration it determines what is drawn.
        rank: of this process.
        parts: batches that make one step (``train.accumulate``).

    Raises:
        InputError: the lists differ in length.
    """

    def __init__(
        self,
        iterations: Sequence[int],
        patch_sizes: Sequence[int],
        batch_sizes: Sequence[int],
        seed: int = 0,
        rank: int = 0,
        parts: int = 1,
    ) -> None:
        if not len(iterations) == len(patch_sizes) == len(batch_sizes):
            raise InputError(
                f'train.progressive: {len(iterations)} iterations, {len(patch_sizes)} patch_sizes and '
                f'{len(batch_sizes)} batch_sizes; give one of each for every stage'
            )
        self.ends = list(itertools.accumulate(iterations))
        self.patch_sizes, self.batch_sizes = patch_sizes, batch_sizes
        self.seed, self.rank, self.parts = seed, rank, parts

    def cut(self, iteration: int, *images: Tensor) -> list[Tensor]:
        """Cut a batch to the part that the stage trains with.

        Args:
            iteration: counted from 1; beyond the last stage that one goes on.
            images: ``(B, C, H, W)`` each, such as the rainy and the clean patches.
        """
        stage = min(bisect.bisect_left(self.ends, iteration), len(self.ends) - 1)
        batch, size = self.batch_sizes[stage] * self.parts, self.patch_sizes[stage]
        rng = sample_rng(self.seed, iteration, self.rank, STREAM)
        count, _, height, width = images[0].shape
        kept = torch.from_numpy(rng.permutation(count)[:batch]) if batch < count else slice(None)
        top, left = (int(rng.integers(side - size + 1)) if side > size else 0 for side in (height, width))
        return [image[kept][..., top : top + size, left : left + size] for image in images]
