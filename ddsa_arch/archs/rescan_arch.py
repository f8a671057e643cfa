"""RESCAN: recurrent squeeze-and-excitation context aggregation net (https://arxiv.org/abs/1807.05698).

Written from the paper's and the release's description. Attribute names are the release's, so that its weights load
without conversion. One network is passed several times; each time it predicts the whole layer of rain from what it
left of the rain before. Dilated convolutions gather wide contexts, and remember what they saw in the earlier stage.

Shapes: B batch, C = channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ddsa_arch.registration import register

SLOPE = 0.2  # of every LeakyReLU below 0
SE_WIDTH = 6  # what the release calls the reduction is the hidden width itself, whatever C
DECODER_DEPTH = 2  # convolutions that ``depth`` counts beside the units
FRAMES = ('Full', 'Add')


def conv3x3(in_channels: int, out_channels: int, dilation: int = 1) -> nn.Conv2d:
    """A convolution with bias that keeps H and W."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation)


class SE(nn.Module):
    """Squeeze and excitation: x * sigmoid(W2 relu(W1 mean_HW(x))), (B, C, H, W) -> the same.

    The mean goes over the whole of what is passed in, so a tile of an image is weighed differently.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(channels, SE_WIDTH), nn.ReLU(), nn.Linear(SE_WIDTH, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean(dim=(2, 3)))[:, :, None, None]


def se_or_not(channels: int, use_se: bool) -> nn.Module:
    return SE(channels) if use_se else nn.Identity()


class Unit(nn.Module):
    """The base of all kinds of unit. In their formulas x is the input, W are convolutions, sig is the sigmoid.

    A unit takes its input (B, C_in, H, W) and the state that it kept in the earlier stage: nothing in the first one.
    It returns its output (B, C, H, W), followed by the state that it keeps for the next stage.

    Every unit ends with leaky_relu(SE(h')). This is its output and, as it stands, the h that it keeps, which therefore
    lies between -0.2 and 1.

    Arguments of every kind:
        in_channels: C_in.
        channels: C.
        dilation: of the convolutions W_x of the input; those of the state, W_h, have none.
        use_se: False leaves SE out.
    """

    se: nn.Module

    def finish(self, h: Tensor) -> Tensor:
        return F.leaky_relu(self.se(h), SLOPE)


class Conv(Unit):
    """h' = W x. Nothing is kept."""

    def __init__(self, in_channels: int, channels: int, dilation: int, use_se: bool) -> None:
        super().__init__()
        self.conv = conv3x3(in_channels, channels, dilation)
        self.se = se_or_not(channels, use_se)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.finish(self.conv(x)),)


class RNN(Unit):
    """h' = tanh(W_x x + W_h h), in the first stage tanh(W_x x). h is kept."""

    def __init__(self, in_channels: int, channels: int, dilation: int, use_se: bool) -> None:
        super().__init__()
        self.conv_x = conv3x3(in_channels, channels, dilation)
        self.conv_h = conv3x3(channels, channels)
        self.se = se_or_not(channels, use_se)

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        h = self.conv_x(x) if h is None else self.conv_x(x) + self.conv_h(h)
        h = self.finish(h.tanh())
        return h, h


class GRU(Unit):
    """Gated recurrent unit, whose update gate z weighs what is new, not what is old. h is kept.

        z = sig(W_xz x + W_hz h);  r = sig(W_xr x + W_hr h);  n = tanh(W_xn x + W_hn (r h))
        h' = (1 - z) h + z n

    In the first stage z = sig(W_xz x), n = tanh(W_xn x), h' = z n.
    """

    def __init__(self, in_channels: int, channels: int, dilation: int, use_se: bool) -> None:
        super().__init__()
        self.conv_xz, self.conv_xr, self.conv_xn = (conv3x3(in_channels, channels, dilation) for _ in range(3))
        self.conv_hz, self.conv_hr, self.conv_hn = (conv3x3(channels, channels) for _ in range(3))
        self.se = se_or_not(channels, use_se)

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if h is None:
            h = self.conv_xz(x).sigmoid() * self.conv_xn(x).tanh()
        else:
            z = (self.conv_xz(x) + self.conv_hz(h)).sigmoid()
            r = (self.conv_xr(x) + self.conv_hr(h)).sigmoid()
            n = (self.conv_xn(x) + self.conv_hn(r * h)).tanh()
            h = (1 - z) * h + z * n
        h = self.finish(h)
        return h, h


class LSTM(Unit):
    """Long short-term memory. h and c are kept, c without SE and LeakyReLU.

        f, i, o = sig(W_x x + W_h h), each with its own W;  j = tanh(W_xj x + W_hj h)
        c' = f c + i j;  h' = o tanh(c')

    In the first stage i, o and j come from x alone, c' = i j, and h' = o c' without tanh.
    """

    def __init__(self, in_channels: int, channels: int, dilation: int, use_se: bool) -> None:
        super().__init__()
        self.conv_xf, self.conv_xi, self.conv_xo, self.conv_xj = (
            conv3x3(in_channels, channels, dilation) for _ in range(4)
        )
        self.conv_hf, self.conv_hi, self.conv_ho, self.conv_hj = (conv3x3(channels, channels) for _ in range(4))
        self.se = se_or_not(channels, use_se)

    def forward(self, x: Tensor, h: Tensor | None = None, c: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        if h is None:
            c = self.conv_xi(x).sigmoid() * self.conv_xj(x).tanh()
            h = self.conv_xo(x).sigmoid() * c
        else:
            f = (self.conv_xf(x) + self.conv_hf(h)).sigmoid()
            i = (self.conv_xi(x) + self.conv_hi(h)).sigmoid()
            o = (self.conv_xo(x) + self.conv_ho(h)).sigmoid()
            j = (self.conv_xj(x) + self.conv_hj(h)).tanh()
            c = f * c + i * j
            h = o * c.tanh()
        h = self.finish(h)
        return h, h, c


UNITS = {'GRU': GRU, 'LSTM': LSTM, 'RNN': RNN, 'Conv': Conv}


@register(ARCH_REGISTRY)
class RESCAN(nn.Module):
    """Stages that share all weights, from x_0 = O, the rainy image:

        R_s = decoder(units(x_s))              frame ``Full``
        R_s = decoder(units(x_s)) + R_{s-1}    frame ``Add``, from the second stage on; no gradient flows into R_{s-1}
        x_{s+1} = O - R_s

    R is the layer of rain. The next stage always sees the input less the rain, never clamped. The units stand in a
    row, each with its own state; their dilations are 1, 1, 2, 4, 8, ... Convolutions begin as PyTorch initialises them.

    Args:
        channels: C of every unit.
        depth: units, one more for each doubling of the dilation, and the decoder's two convolutions.
        stages: how often the network is passed. The number does not touch the weights.
        use_se: squeeze and excitation after every unit and in the decoder.
        unit: ``GRU``, ``LSTM``, ``RNN``, or ``Conv``, which remembers nothing.
        frame: ``Full`` predicts all of the rain in each stage, ``Add`` what is to be added to the earlier prediction.

    Shape: (B, 3, H, W) in [0, 1] -> [x_1, ..., x_stages] of the same shape, the last one final; any H and W; not
    clamped. The release gives R instead.
    """

    size_multiple = 1
    block_types = (Unit,)  # whose activations `train.checkpoint_blocks` computes anew in the backward pass

    def __init__(
        self,
        channels: int = 24,
        depth: int = 7,
        stages: int = 4,
        use_se: bool = True,
        unit: str = 'GRU',
        frame: str = 'Full',
    ) -> None:
        super().__init__()
        for name, value, least, published in (
            ('channels', channels, 1, 24), ('depth', depth, DECODER_DEPTH + 1, 7), ('stages', stages, 1, 4)
        ):  # fmt: skip
            if value < least:
                raise ValueError(f'{name}: {value} is below {least}; the published network has {published}')
        for name, choice, allowed in (('unit', unit, tuple(UNITS)), ('frame', frame, FRAMES)):
            if choice not in allowed:
                raise ValueError(f'{name}: {choice!r} is not known; choose one of {", ".join(map(repr, allowed))}')
        self.stages, self.frame = stages, frame

        dilations = [1, *(2**i for i in range(depth - DECODER_DEPTH - 1))]
        self.rnns = nn.ModuleList(
            UNITS[unit](channels if i else 3, channels, dilation, use_se) for i, dilation in enumerate(dilations)
        )
        self.dec = nn.Sequential(
            conv3x3(channels, channels),
            se_or_not(channels, use_se),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(channels, 3, 1),
        )

    def forward(self, rainy: Tensor) -> list[Tensor]:
        image = rainy
        images: list[Tensor] = []
        earlier: Tensor | None = None
        states: list[Sequence[Tensor]] = [()] * len(self.rnns)
        for _ in range(self.stages):
            x = image
            for index, unit in enumerate(self.rnns):
                x, *states[index] = unit(x, *states[index])  # (B, C, H, W)
            rain = self.dec(x)  # (B, 3, H, W)
            if self.frame == 'Add' and earlier is not None:
                rain = rain + earlier.detach()
            earlier, image = rain, rainy - rain
            images.append(image)
        return images
