"""The loss of DDSANet."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn


@LOSS_REGISTRY.register()
class DerainL1Loss(nn.Module):
    """L1 loss, eq. (3) of https://arxiv.org/abs/2308.07781, averaged over all pixels and channels.

    A network that gives several images is charged for each of them: sum_i w_i mean|output_i - target|.

    Args:
        loss_weight: factor of the whole loss.
        output_weights: w_i, one for each output of the network, the last one being the final image; all 1 if absent.
    """

    def __init__(self, loss_weight: float = 1.0, output_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.output_weights = output_weights

    def forward(self, output: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """
        Args:
            output: ``(B, C, H, W)``, or several of them.
            target: ``(B, C, H, W)``.

        Raises:
            ValueError: ``output_weights`` has another length than the network has outputs.
        """
        outputs = [output] if isinstance(output, Tensor) else list(output)
        weights = self.output_weights or [1.0] * len(outputs)
        if len(weights) != len(outputs):
            raise ValueError(f'output_weights has {len(weights)} entries, the network {len(outputs)} outputs')
        return self.loss_weight * sum(w * F.l1_loss(o, target) for w, o in zip(weights, outputs, strict=True))
