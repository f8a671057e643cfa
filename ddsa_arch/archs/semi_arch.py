"""SEMI (SIRR): semi-supervised transfer learning for rain removal (https://arxiv.org/abs/1807.11078).

Written from the paper and from a description of the authors' TensorFlow release, whose code was read for it, and of
the size of its weight file. The network is the deep detail network (DDN) of Fu et al., CVPR 2017. Its outputs are not
known to us, so it is checked against that description alone, and against the number of its parameters.

A second branch learns from real photos without targets (SemiRainDataset, SEMILoss). The branches share the kernels
only: the release means to share all weights, but makes biases and norms anew for each branch. It tests with those of
the labelled one.

Ours: attribute names (a TensorFlow checkpoint has others), and the uniform kind of Xavier's initialisation, of which
the description does not tell the kind.

Shapes: B batch, C = channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ddsa_arch.archs.blocks import precision
from ddsa_arch.ops.guided_filter import base_layer
from ddsa_arch.registration import register

EPS = 1e-5  # of the norms


class Branch(nn.Module):
    """The weights that each branch has for itself: bias, scale and shift of each layer.

    The norm that follows takes every bias away again, so biases have no effect. They stand in the published weights
    and are counted; here they are frozen, so that no optimiser waits for a gradient.

    Args:
        widths: channels that each layer gives.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(w), requires_grad=False) for w in widths)
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(w)) for w in widths)
        self.shifts = nn.ParameterList(nn.Parameter(torch.zeros(w)) for w in widths)


def statistics_norm(x: Tensor, scale: Tensor, shift: Tensor, over_batch: bool) -> Tensor:
    """scale (x - mean) / sqrt(variance + eps) + shift for each channel, (B, C, H, W) -> the same, at least float32.

    Args:
        x: any range.
        scale: ``(C,)``.
        shift: ``(C,)``.
        over_batch: mean and (biased) variance over the batch; else over each image by itself, of which a single pixel
            becomes the shift.
    """
    x = precision.full_precision(x)
    if over_batch:
        return F.batch_norm(x, None, None, scale, shift, training=True, eps=EPS)
    return F.layer_norm(x, x.shape[2:], eps=EPS) * scale[:, None, None] + shift[:, None, None]


@register(ARCH_REGISTRY)
class SEMI(nn.Module):
    """The deep detail network: image + n / factor, where n is predicted from the image's detail layer.

        detail = image - base, by the guided filter of the image with itself
        s = relu(L_1(detail))
        s = s + relu(L_{2i+1}(relu(L_{2i}(s))))    for i = 1 .. units; the ReLU comes before the sum
        n = L_{2 units + 2}(s)

    L is a 3x3 convolution and a norm. The norm has no running statistics: in training it takes those of the batch, in
    evaluation those of each image, as the release tests one image at a time. So a result depends on the whole of what
    is passed in, and a tile or a padded image gives another one.

    Args:
        channels: C.
        units: residual units.
        factor: by which n is divided; 1 in the release.
        semi: adds the branch that learns from photos without targets. Weights that were trained with it need it at
            test as well.

    Shape: (B, 3, H, W) in [0, 1] -> the same; any H and W; not clamped. With ``semi``, (B, 6, H, W) is the labelled
        image and a photo without target; training mode then gives [photo - its output, its output, output], each
        (B, 3, H, W), and evaluation mode the output of the labelled image alone.
    """

    size_multiple = 1
    block_types = ()  # none: the features are too narrow to be worth it

    def __init__(self, channels: int = 16, units: int = 12, factor: float = 1.0, semi: bool = False) -> None:
        super().__init__()
        for name, value, published in (('channels', channels, 16), ('units', units, 12), ('factor', factor, 1)):
            if value <= 0:
                raise ValueError(f'{name}: {value} is not above 0; the published network has {published}')
        self.factor = factor
        inputs = [3] + [channels] * (2 * units + 1)
        widths = [channels] * (2 * units + 1) + [3]
        kernels = [nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in zip(inputs, widths, strict=True)]
        for conv in kernels:
            nn.init.xavier_uniform_(conv.weight)
        self.kernels = nn.ModuleList(kernels)
        self.labelled = Branch(widths)
        self.unlabelled = Branch(widths) if semi else None

    def forward(self, rain: Tensor) -> Tensor | list[Tensor]:
        if rain.shape[1] == 3:
            return self.derain(rain, self.labelled)
        if rain.shape[1] != 6 or self.unlabelled is None:
            raise ValueError(
                f'SEMI takes 3 channels, not {rain.shape[1]}; for 6, a labelled image and a photo without target, set '
                'network_g.semi: true, or for 3 datasets.train.type: PairedRainDataset'
            )
        labelled, photo = rain.split(3, dim=1)
        output = self.derain(labelled, self.labelled)
        if not self.training:
            return output
        photo_output = self.derain(photo, self.unlabelled)
        return [photo - photo_output, photo_output, output]

    def derain(self, image: Tensor, branch: Branch) -> Tensor:
        """The output of one branch, (B, 3, H, W) in [0, 1] -> the same."""
        *body, last = zip(self.kernels, branch.scales, branch.shifts, strict=True)
        first, *pairs = body
        s = F.relu(self.layer(image - base_layer(image), *first))  # (B, C, H, W)
        for one, other in zip(pairs[::2], pairs[1::2], strict=True):
            s = s + F.relu(self.layer(F.relu(self.layer(s, *one)), *other))
        n = self.layer(s, *last)  # (B, 3, H, W), the negative of the rain
        return image + n / self.factor

    def layer(self, x: Tensor, conv: nn.Module, scale: Tensor, shift: Tensor) -> Tensor:
        return statistics_norm(conv(x), scale, shift, over_batch=self.training)
