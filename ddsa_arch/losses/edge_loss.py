"""Losses between the edges of images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor

from ddsa_arch.losses.outputs import OutputsLoss, check_choice
from ddsa_arch.losses.pixel_loss import charbonnier
from ddsa_arch.registration import register

BINOMIAL = (0.05, 0.25, 0.4, 0.25, 0.05)  # one direction of MPRNet's Gaussian filter
LAPLACIAN = ((-1.0, -1.0, -1.0), (-1.0, 8.0, -1.0), (-1.0, -1.0, -1.0))  # of MSPFN


@register(LOSS_REGISTRY)
class EdgeLoss(OutputsLoss):
    """Charbonnier loss between the edges of images, of each output of the network; see OutputsLoss.

    ``pyramid``, as MPRNet (https://arxiv.org/abs/2102.02808): the edges are what a Gaussian filter G takes away after
    half of the resolution was given up, L(x) = x - G(Z(G(x))), where Z keeps the pixels of even row and column, times
    4, and sets the others to 0. ``laplacian``, as MSPFN (https://arxiv.org/abs/2003.10985): a 3x3 filter with 8 in the
    middle and -1 around it, zeros beyond the border.

    Args:
        kind: ``pyramid`` or ``laplacian``.
        eps: of the Charbonnier loss, in image units.
        loss_weight: factor of the whole loss; both papers have 0.05.
        output_weights: see OutputsLoss.
        target_resize: see OutputsLoss.
    """

    def __init__(
        self,
        kind: str = 'pyramid',
        eps: float = 1e-3,
        loss_weight: float = 1.0,
        output_weights: Sequence[float] | None = None,
        target_resize: str = 'bilinear',
    ) -> None:
        super().__init__(loss_weight, output_weights, target_resize=target_resize)
        check_choice('kind', kind, ('pyramid', 'laplacian'))
        self.edges = pyramid_edges if kind == 'pyramid' else laplacian
        self.eps = eps

    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        return charbonnier(self.edges(output) - self.edges(target), self.eps)


def pyramid_edges(x: Tensor) -> Tensor:
    """L(x) = x - G(Z(G(x))) of ``(B, C, H, W)``, see EdgeLoss."""
    coarse = torch.zeros_like(x)
    coarse[..., ::2, ::2] = 4 * _gaussian(x)[..., ::2, ::2]
    return x - _gaussian(coarse)


def _gaussian(x: Tensor) -> Tensor:
    """G: 5x5 binomial filter, edge pixels repeated beyond the border; one direction after the other."""
    channels = x.shape[1]
    row = x.new_tensor(BINOMIAL).expand(channels, 1, 1, -1)
    x = F.pad(x, (2, 2, 2, 2), mode='replicate')
    return F.conv2d(F.conv2d(x, row, groups=channels), row.transpose(-2, -1), groups=channels)


def laplacian(x: Tensor) -> Tensor:
    """The 3x3 Laplacian of ``(B, C, H, W)``, see EdgeLoss."""
    channels = x.shape[1]
    return F.conv2d(x, x.new_tensor(LAPLACIAN).expand(channels, 1, 3, 3), padding=1, groups=channels)
