"""DerainNet: clearing the skies (https://arxiv.org/abs/1609.02087).

Written from the paper and from descriptions of two pieces of code. From the first author's TensorFlow code, as a public
copy of it has it: the guided filter channel by channel, the layers, ReLU, and the padding at test. A re-implementation
by others (derain-toolbox) agrees in the layers, in ReLU and in the number of parameters; it filters with a colour
guide and does not repeat the edge pixel. The paper, as far as we remember it, has tanh; which of the two made the
published scores is not known. No outputs are known to us, so the network is checked against these descriptions alone.
The initialisation is PyTorch's, as nothing is said about it.

Shapes: B batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ddsa_arch.archs.blocks import precision
from ddsa_arch.ops.guided_filter import base_layer
from ddsa_arch.registration import register

PADDING = 10  # pixels on each side, of which the convolutions leave CUT
CUT = 6
ACTIVATIONS = {'relu': nn.ReLU, 'tanh': nn.Tanh}


def symmetric_pad(x: Tensor, padding: int) -> Tensor:
    """Extend ``(B, C, H, W)`` on all sides by reflection that repeats the edge pixel, as often as it takes."""
    for dim in (-2, -1):
        side = x.shape[dim]
        place = torch.arange(-padding, side + padding, device=x.device) % (2 * side)
        x = x.index_select(dim, torch.minimum(place, 2 * side - 1 - place))
    return x


@register(ARCH_REGISTRY)
class DerainNet(nn.Module):
    """A small CNN on the detail layer; its clean image is base + CNN(detail).

        base = the guided filter of the image with itself;  detail = image - base
        CNN = conv8x8 transposed(act(conv1x1(act(conv16x16(.)))))

    The CNN pads nothing and would lose 4 pixels at each edge, so the image is padded first, in training as at test;
    the author's code trains without padding, which DetailLoss follows by leaving out the edge.

    Args:
        channels: of the CNN.
        activation: ``relu``, or ``tanh`` as the paper has it.
        return_detail: give the output of the CNN too, which DetailLoss compares.

    Shape: (B, 3, H, W) in [0, 1] -> the same; with ``return_detail`` [detail, image], both of that shape. Any H and W;
        not clamped.
    """

    size_multiple = 1
    block_types = ()  # none: nothing is repeated

    def __init__(self, channels: int = 512, activation: str = 'relu', return_detail: bool = False) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f'channels: {channels} is below 1; the published network has 512')
        if activation not in ACTIVATIONS:
            known = ', '.join(map(repr, ACTIVATIONS))
            raise ValueError(f'activation: {activation!r} is not known; choose one of {known}')
        self.return_detail = return_detail
        self.cnn = nn.Sequential(
            nn.Conv2d(3, channels, 16),
            ACTIVATIONS[activation](),
            nn.Conv2d(channels, channels, 1),
            ACTIVATIONS[activation](),
            nn.ConvTranspose2d(channels, 3, 8),
        )

    def forward(self, rain: Tensor) -> Tensor | list[Tensor]:
        padded = symmetric_pad(rain, PADDING)  # (B, 3, H + 20, W + 20)
        base = base_layer(padded)
        detail = precision.full_precision(self.cnn(padded - base))  # (B, 3, H + 12, W + 12)
        detail = F.pad(detail, (-CUT,) * 4)  # (B, 3, H, W)
        image = F.pad(base, (-PADDING,) * 4) + detail
        return [detail, image] if self.return_detail else image
