"""The uncertainty-guided loss of UMRL (https://arxiv.org/abs/1906.11129)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from ddsa_arch.losses.outputs import resized
from ddsa_arch.registration import register

SCALES = (0.25, 0.5, 1.0)  # weights of the images at 1/4, 1/2 and full size
LOG_WEIGHTS = (4.0, 2.0, 1.0)  # of the logarithms of their confidences
LOG_EPS = 1e-8
LAMBDA = 0.1
SURE = 0.25  # below it the network is sure of itself, and lambda falls


@register(LOSS_REGISTRY)
class UMRLLoss(nn.Module):
    """Smooth L1 loss that counts as far as the network is confident, less the reward for being confident.

    Over the scales s, with images in [-1, 1], confidences c_s in (0, 1) and the clean image y_s:

        sum_s w_s S(c_s x_s + (1 - c_s) y_s, y_s) - lambda / (H W) sum_s v_s sum log(c_s + 1e-8)

    w = 1/4, 1/2, 1 and v = 4, 2, 1 from the coarsest to the finest scale. lambda = 0.1; when t, the second sum over
    -H W, is below 0.25, lambda = 0.009 (exp(5.4 t) - 0.98), a constant for the gradient.

    Args:
        loss_weight: factor of the whole loss.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, output: Sequence[Tensor], target: Tensor) -> Tensor:
        """
        Args:
            output: ``[c_quarter, c_half, c_full, x_quarter, x_half, x]``, ``(B, 3, h, w)`` each, the images in [0, 1]:
                what ``UMRL(return_confidence=True)`` gives.
            target: ``(B, 3, H, W)`` in [0, 1].

        Raises:
            ValueError: not these six outputs.
        """
        if isinstance(output, Tensor) or len(output) != 2 * len(SCALES):
            raise ValueError('UMRLLoss needs three confidences and three images: set network_g.return_confidence: true')
        confidences, images = output[: len(SCALES)], output[len(SCALES) :]
        pixels = target.shape[0] * target.shape[-2] * target.shape[-1]
        fidelity = reward = t = target.new_zeros(())
        for weight, log_weight, confidence, image in zip(SCALES, LOG_WEIGHTS, confidences, images, strict=True):
            difference = 2 * confidence * (image - resized(target, image, 'nearest'))  # in [-1, 1]
            fidelity = fidelity + weight * F.smooth_l1_loss(difference, torch.zeros_like(difference))
            reward = reward + log_weight * torch.log(confidence + LOG_EPS).sum() / pixels
            t = t - log_weight * torch.log(confidence.detach()).sum() / pixels
        factor = torch.where(t < SURE, 0.09 * LAMBDA * (torch.exp(5.4 * t) - 0.98), torch.full_like(t, LAMBDA))
        return self.loss_weight * (fidelity - factor * reward)
