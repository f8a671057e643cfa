"""The guided filter (https://doi.org/10.1109/TPAMI.2012.213) of an image by itself."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def box_mean(x: Tensor, radius: int) -> Tensor:
    """Mean over the square of side 2 radius + 1 around each pixel of ``(B, C, H, W)``, as far as it lies inside."""
    side = 2 * radius + 1
    rows = F.avg_pool2d(x, (side, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, side), 1, (0, radius), count_include_pad=False)


def base_layer(image: Tensor, radius: int = 15, eps: float = 1.0) -> Tensor:
    """Filter an image with each channel as its own guide; what this removes is the image's detail layer.

    With a = var / (var + eps) and b = mean - a mean in the window of each pixel, q = mean(a) I + mean(b). The defaults
    are those of DerainNet and of the deep detail network, for images in [0, 1].

    Args:
        image: ``(B, C, H, W)``, of any size.
        radius: of the window, in pixels.
        eps: variance that counts as flat.
    """
    mean = box_mean(image, radius)
    variance = box_mean(image * image, radius) - mean * mean
    a = variance / (variance + eps)
    b = mean - a * mean
    return box_mean(a, radius) * image + box_mean(b, radius)
