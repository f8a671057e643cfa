"""The loss of DDSANet."""

from __future__ import annotations

import torch.nn.functional as F
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor

from ddsa_arch.losses.outputs import OutputsLoss
from ddsa_arch.registration import register


@register(LOSS_REGISTRY)
class DerainL1Loss(OutputsLoss):
    """L1 loss, eq. (3) of https://arxiv.org/abs/2308.07781, averaged over all pixels and channels.

    A network that gives several images is charged for each of them; see OutputsLoss.
    """

    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(output, target)
