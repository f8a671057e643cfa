"""Several convolutions of one input, run as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def joint_conv(convs: Sequence[nn.Conv2d], x: Tensor) -> tuple[Tensor, ...]:
    """The outputs of equal 3x3 convolutions of one input, run as one, which is faster and gives the same numbers."""
    weight = torch.cat([conv.weight for conv in convs])
    bias = torch.cat([conv.bias for conv in convs])
    dilation = convs[0].dilation
    return F.conv2d(x, weight, bias, padding=dilation, dilation=dilation).chunk(len(convs), dim=1)
