"""Losses that compare images pixel by pixel, beside the L1 loss of DDSANet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor

from ddsa_arch.losses.outputs import OutputsLoss
from ddsa_arch.registration import register


@register(LOSS_REGISTRY)
class DerainMSELoss(OutputsLoss):
    """Mean of squared differences, of each output of the network; see OutputsLoss (RESCAN, DerainNet, DDN)."""

    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(output, target)


@register(LOSS_REGISTRY)
class DerainCharbonnierLoss(OutputsLoss):
    """Mean of sqrt(d^2 + eps^2) over the differences d, of each output of the network; see OutputsLoss.

    As MPRNet (https://arxiv.org/abs/2102.02808) and the networks after it have it.

    Args:
        eps: where the loss turns from a square to an absolute value, in image units.
        loss_weight: factor of the whole loss.
        output_weights: see OutputsLoss.
    """

    def __init__(
        self,
        eps: float = 1e-3,
        loss_weight: float = 1.0,
        output_weights: Sequence[float] | None = None,
        reduction: str = 'mean',
    ) -> None:
        super().__init__(loss_weight, output_weights, reduction)
        self.eps = eps

    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        return charbonnier(output - target, self.eps)


def charbonnier(difference: Tensor, eps: float) -> Tensor:
    """Mean of sqrt(difference^2 + eps^2)."""
    return torch.sqrt(difference * difference + eps * eps).mean()
