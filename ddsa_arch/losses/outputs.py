"""The base of this package's losses, for networks that give one image or several."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class OutputsLoss(nn.Module, abc.ABC):
    """Sum over the outputs of a network: loss_weight * sum_i w_i distance(output_i, target).

    An output that is smaller than the target is compared with the target brought to its size: bilinear, without
    aligned corners, so that half the size is the mean of 2 x 2 pixels (as ELF, https://arxiv.org/abs/2207.10455).

    Args:
        loss_weight: factor of the whole loss.
        output_weights: w_i, one for each output of the network, the last one being the final image; all 1 if absent.
            An output of weight 0 is left out.
        reduction: ``mean``, as option files of BasicSR have it; there is no other.

    Raises:
        ValueError: another reduction.
    """

    target_resize = 'bilinear'

    def __init__(
        self, loss_weight: float = 1.0, output_weights: Sequence[float] | None = None, reduction: str = 'mean'
    ) -> None:
        super().__init__()
        if reduction != 'mean':
            raise ValueError(f"reduction: {reduction!r}, wanted 'mean', which is the only one")
        self.loss_weight = loss_weight
        self.output_weights = output_weights

    @abc.abstractmethod
    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean distance over a batch, a scalar; both images are ``(B, C, H, W)``."""

    def forward(self, output: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """
        Args:
            output: ``(B, C, H, W)``, or several of them, some of which may be smaller.
            target: ``(B, C, H, W)``.

        Raises:
            ValueError: ``output_weights`` has another length than the network has outputs, or nothing but zeros.
        """
        outputs = [output] if isinstance(output, Tensor) else list(output)
        weights = self.output_weights or [1.0] * len(outputs)
        if len(weights) != len(outputs):
            many = 's' if len(outputs) > 1 else ''
            raise ValueError(
                f'output_weights has {len(weights)} entries, the network {len(outputs)} output{many}; '
                'give one for each, the final image last'
            )
        if not any(weights):
            raise ValueError('output_weights: all of them are 0, which leaves nothing to learn from')
        first, *others = (
            weight * self.distance(image, resized(target, image, self.target_resize))
            for weight, image in zip(weights, outputs, strict=True)
            if weight
        )
        return self.loss_weight * sum(others, first)


def resized(target: Tensor, like: Tensor, mode: str = 'bilinear') -> Tensor:
    """Resize ``target`` to the height and width of ``like``; ``mode`` is ``bilinear`` or ``nearest``."""
    if target.shape[-2:] == like.shape[-2:]:
        return target
    return F.interpolate(target, size=like.shape[-2:], mode=mode, align_corners=False if mode == 'bilinear' else None)
