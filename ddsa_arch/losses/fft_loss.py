"""Losses between the spectra of images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor

from ddsa_arch.archs.blocks import precision
from ddsa_arch.losses.outputs import OutputsLoss, check_choice
from ddsa_arch.registration import register

KINDS = ('parts', 'modulus')


@register(LOSS_REGISTRY)
class FFTLoss(OutputsLoss):
    """Mean difference of the Fourier transforms of images, of each output of the network; see OutputsLoss.

    D = F(output) - F(target), the transform over height and width of each channel, not normalised:

        parts:    mean of |Re D| and |Im D| over all frequencies, half of the sum of both means (ConvIR, SFHformer)
        modulus:  mean of |D| over all frequencies (NeRD-Rain)

    As F is linear, one transform of the difference gives D. Images of 16 bits are compared in float32.

    Args:
        kind: ``parts`` or ``modulus``.
        loss_weight: factor of the whole loss; 0.1 in ConvIR and SFHformer, 0.01 in NeRD-Rain.
        output_weights: see OutputsLoss.
        reduction: see OutputsLoss.
        target_resize: see OutputsLoss.

    Raises:
        ValueError: an unknown kind.
    """

    def __init__(
        self,
        kind: str = 'parts',
        loss_weight: float = 1.0,
        output_weights: Sequence[float] | None = None,
        reduction: str = 'mean',
        target_resize: str = 'bilinear',
    ) -> None:
        super().__init__(loss_weight, output_weights, reduction, target_resize)
        check_choice('kind', kind, KINDS)
        self.kind = kind

    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        spectrum = torch.fft.fft2(precision.full_precision(output) - precision.full_precision(target))
        return (spectrum if self.kind == 'modulus' else torch.view_as_real(spectrum)).abs().mean()
