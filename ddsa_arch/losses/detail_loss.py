"""The loss of DerainNet (https://arxiv.org/abs/1609.02087)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from ddsa_arch.ops.guided_filter import base_layer
from ddsa_arch.registration import register

BORDER = 4  # pixels at each edge that the published network, which pads nothing in training, does not reach


@register(LOSS_REGISTRY)
class DetailLoss(nn.Module):
    """Mean squared difference between the network's detail layer and that of the clean image.

    Args:
        loss_weight: factor of the whole loss.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, output: Sequence[Tensor], target: Tensor) -> Tensor:
        """
        Args:
            output: ``[detail, image]``, what ``DerainNet(return_detail=True)`` gives.
            target: ``(B, 3, H, W)`` in [0, 1], sides above 8.

        Raises:
            ValueError: not these two outputs.
        """
        if isinstance(output, Tensor) or len(output) != 2:
            raise ValueError('DetailLoss needs the detail layer too: set network_g.return_detail: true')
        inner = (..., slice(BORDER, -BORDER), slice(BORDER, -BORDER))
        detail = target - base_layer(target)
        return self.loss_weight * F.mse_loss(output[0][inner], detail[inner])
