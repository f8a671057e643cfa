"""Losses that compare images pixel by pixel, beside the L1 loss of DDSANet."""

from __future__ import annotations

import math
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
        reduction: see OutputsLoss.
        target_resize: see OutputsLoss.
    """

    def __init__(
        self,
        eps: float = 1e-3,
        loss_weight: float = 1.0,
        output_weights: Sequence[float] | None = None,
        reduction: str = 'mean',
        target_resize: str = 'bilinear',
    ) -> None:
        super().__init__(loss_weight, output_weights, reduction, target_resize)
        self.eps = eps

    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        return charbonnier(output - target, self.eps)


@register(LOSS_REGISTRY)
class PSNRLoss(OutputsLoss):
    """Minus the PSNR of each image in dB, peak 1, mean over the batch, of each output; see OutputsLoss.

    10 log10(mse + eps), the mean squared error being that of all channels and pixels of an image, as NAFNet
    (https://arxiv.org/abs/2204.04676) trains with it. Below 0 for all images that are of use.

    Args:
        eps: added to the mean squared error; equal images have 10 log10(eps).
        loss_weight: factor of the whole loss.
        output_weights: see OutputsLoss.
        reduction: see OutputsLoss.
        target_resize: see OutputsLoss.

    Raises:
        ValueError: ``eps`` is not above 0.
    """

    def __init__(
        self,
        eps: float = 1e-8,
        loss_weight: float = 1.0,
        output_weights: Sequence[float] | None = None,
        reduction: str = 'mean',
        target_resize: str = 'bilinear',
    ) -> None:
        super().__init__(loss_weight, output_weights, reduction, target_resize)
        if not eps > 0:
            raise ValueError(f'eps: {eps} is not above 0; equal images would have an infinite loss')
        self.eps = eps

    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        squares = (output - target).square().mean(dim=(1, 2, 3))
        return 10 / math.log(10) * (squares + self.eps).log().mean()


def charbonnier(difference: Tensor, eps: float) -> Tensor:
    """Mean of sqrt(difference^2 + eps^2)."""
    return torch.sqrt(difference * difference + eps * eps).mean()
