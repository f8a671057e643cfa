"""Structural similarity as a loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor

from ddsa_arch.losses.outputs import OutputsLoss
from ddsa_arch.registration import register

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2  # for a range of 1


@register(LOSS_REGISTRY)
class SSIMLoss(OutputsLoss):
    """Negative SSIM on RGB, of each output of the network; see OutputsLoss. -1 for equal images.

    As PReNet (https://arxiv.org/abs/1901.09221) and IDT train with it: see ``ssim``. It is not the SSIM of the result
    tables, which is taken on Y without the border.
    """

    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        return -ssim(output, target)


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Mean SSIM of two ``(B, C, H, W)`` in [0, 1], each channel by itself; a scalar.

    Gaussian window of 11 x 11, sigma 1.5; zeros beyond the border, which counts; moments divided by the window's sum;
    C1 = 0.01^2, C2 = 0.03^2.
    """
    moments = _windowed(torch.cat([x, y, x * x, y * y, x * y], dim=1))
    mean_x, mean_y, square_x, square_y, product = moments.chunk(5, dim=1)
    variance_x, variance_y = square_x - mean_x * mean_x, square_y - mean_y * mean_y
    covariance = product - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x * mean_x + mean_y * mean_y + C1)
    structure = (2 * covariance + C2) / (variance_x + variance_y + C2)
    return (luminance * structure).mean()


def _windowed(x: Tensor) -> Tensor:
    """Weighted means over the window; the window is the product of two directions."""
    channels = x.shape[1]
    place = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weights = torch.exp(-(place**2) / (2 * SIGMA**2))
    row = (weights / weights.sum()).expand(channels, 1, 1, -1)
    x = F.conv2d(x, row, padding=(0, WINDOW // 2), groups=channels)
    return F.conv2d(x, row.transpose(-2, -1), padding=(WINDOW // 2, 0), groups=channels)
