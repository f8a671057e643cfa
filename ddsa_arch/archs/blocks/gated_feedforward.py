"""Gated feed-forward network of Restormer (https://arxiv.org/abs/2111.09881), written from the paper."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from ddsa_arch.archs.blocks.feedforward import Crop, FeedForward
from ddsa_arch.archs.blocks.fused import aligned, channel_groups, conv, conv_add_, conv_times

GROUP_NUMBERS = 2**23  # of a strip's features that go through the network at a time, so that they stay in a cache


def gated_strip(
    x: Tensor,
    expand: nn.Conv2d,
    depthwise: nn.Conv2d,
    weight: Tensor,
    bias: Tensor | None,
    activation: nn.Module,
    crop: Crop,
    out: Tensor | None,
    look: Callable[[Tensor], None] = lambda gated: None,
) -> Tensor:
    """out + conv1x1(activation(a) * b) with a, b = split(depthwise(expand(x))) of a strip, some channels at a time.

    Args:
        x: ``(B, C, h, w)``.
        expand: 1x1 convolution to twice as many channels as the weight takes.
        depthwise: 3x3.
        weight: of the last 1x1 convolution.
        bias: of that.
        activation: GELU without approximation is fused; of another, activation(0) must be 0.
        crop: see ``strips``.
        out: ``(B, O, h, w)`` of the strip without its halo, written into; None for 0.
        look: gets to see activation(a) * b, without the halo.
    """
    hidden = weight.shape[1]
    fused = isinstance(activation, nn.GELU) and activation.approximate == 'none'

    def part(channels: slice, offset: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Of one half: the channels before the depth-wise convolution, and its weight and bias."""
        places = slice(channels.start + offset, channels.stop + offset)
        biases = [None if m.bias is None else aligned(m.bias[places]) for m in (expand, depthwise)]
        return conv(x, aligned(expand.weight[places]), biases[0]), aligned(depthwise.weight[places]), biases[1]

    for channels in channel_groups(hidden, GROUP_NUMBERS // x.shape[2] // x.shape[3]):
        u, *local = part(channels, 0)
        groups = u.shape[1]
        if fused:
            gate = conv(u, *local, 1, groups=groups, activation='gelu')
        else:
            gate = activation(F.conv2d(u, *local, 1, 1, 1, groups))
        u, *local = part(channels, hidden)
        gated = crop(conv_times(u, gate, *local, 1, groups))
        look(gated[:, : channels.stop - channels.start])
        out = conv_add_(out, gated, aligned(weight[:, channels], dim=1), bias)
        bias = None
    return out


class GDFN(FeedForward):
    """Gated-Dconv feed-forward network (section 3.2 of the paper), (B, C, H, W) -> (B, C, H, W).

        a, b = split(DW3x3(conv1x1(x)))
        out = conv1x1(activation(a) * b)

    The attribute names are those of the published weights.

    Args:
        dim: channels C.
        expansion: width of a and b over C; ``expansion * C`` is cut off to an integer, as in the release.
        bias: bias in the convolutions.
        activation: of the gate; None is the paper's GELU (with erf). A PReLU's slope lies under the key ``act1``.
    """

    def __init__(
        self, dim: int, expansion: float = 2.66, bias: bool = False, activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        hidden = hidden_width(dim, expansion)
        self.act1 = nn.GELU() if activation is None else activation
        self.project_in = nn.Conv2d(dim, hidden * 2, 1, bias=bias)
        self.dwconv = nn.Conv2d(hidden * 2, hidden * 2, 3, padding=1, groups=hidden * 2, bias=bias)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    halo = 1

    def strip(self, x: Tensor, crop: Crop, out: Tensor | None) -> tuple[Tensor, None]:
        last = self.project_out
        return gated_strip(x, self.project_in, self.dwconv, last.weight, last.bias, self.act1, crop, out), None

    def equation(self, x: Tensor) -> Tensor:
        a, b = self.dwconv(self.project_in(x)).chunk(2, dim=1)  # (B, hidden, H, W) each
        return self.project_out(self.act1(a) * b)


def hidden_width(dim: int, expansion: float) -> int:
    """Hidden channels of a feed-forward network: ``expansion * dim``, cut off to an integer."""
    hidden = int(dim * expansion)
    if hidden < 1:
        raise ValueError(f'expansion {expansion} leaves no hidden channel of {dim} channels; the papers have 2.66')
    return hidden
