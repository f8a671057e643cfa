"""MSPFN: multi-scale progressive fusion network (https://arxiv.org/abs/2003.10985).

Written from the paper and from a description of the authors' TensorFlow release, whose code was read for it: layers,
widths, initialisation and sizes are the release's. Its outputs are not known to us, so the network is checked against
that description alone, and against the number of its parameters. The release holds two graphs: the defaults are those
of the one behind the published weights, whose 15.82 M parameters later papers print (as far as we remember them); the
training file's, which is larger, has ``rcabs: [1, 3, 3]``.

Ours: attribute names (a TensorFlow checkpoint has others), and channels in the order RGB. The release reads BGR, which
only swaps the channels of the first and the last kernels.

Shapes: B batch, C = width channels; images are in [-1, 1] inside. Scale s stands for the resolution 1/s.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ddsa_arch.registration import register

SQUEEZE = 4  # the width over that of the hidden layer in channel attention
LSTM_INIT_STD = 1e-3
MEMORY = {4: 1, 2: 2, 1: 4}  # features of the LSTM at each scale, over the width


def prelu(channels: int) -> nn.PReLU:
    """One slope for each channel; 0 at first, so that it begins as a ReLU."""
    return nn.PReLU(channels, init=0.0)


class SameConv(nn.Sequential):
    """PReLU(conv3x3(x)) without bias, (B, in, h, w) -> (B, out, h, w).

    The release writes a transposed convolution of stride 1: the same with the kernel turned by 180 degrees.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), prelu(out_channels))


class Halve(nn.Module):
    """PReLU(conv3x3(x)) of stride 2 without bias, (B, C, h, w) -> (B, C, ceil(h/2), ceil(w/2)).

    Padded as TensorFlow's SAME: zeros on both sides of an odd side, behind an even one alone.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, bias=False)
        self.activation = prelu(channels)

    def forward(self, x: Tensor) -> Tensor:
        top, left = (side % 2 for side in x.shape[-2:])
        return self.activation(self.conv(F.pad(x, (left, 1, top, 1))))


class Double(nn.Module):
    """PReLU of the transposed 3x3 convolution of stride 2 without bias, (B, in, h, w) -> (B, out, 2h, 2w).

    What it transposes is a convolution padded as in Halve: so it can also lead back to an odd side, 2h - 1, where the
    features came from. The description has this for even sides alone; for odd ones it follows from the shapes.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, bias=False)
        self.activation = prelu(out_channels)

    def forward(self, x: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """``size`` is (H, W) of the output; (2h, 2w) if absent."""
        height, width = size or (2 * x.shape[-2], 2 * x.shape[-1])
        top, left = height % 2, width % 2
        x = self.conv(x)  # (B, out, 2h + 1, 2w + 1)
        return self.activation(x[..., top : top + height, left : left + width])


class ConvLSTM(nn.Module):
    """A step of a convolutional LSTM from a state of zeros, (B, in, h, w) -> (B, f, h, w).

        i, j, _, o = conv3x3([x, 0])
        out = tanh(sigmoid(i) tanh(j)) sigmoid(o)

    The release takes this one step and no other. So the forget gate and the kernels on the state have no effect; they
    stand in the published weights and are counted, hence they stand in this one's as well. Fast execution leaves them
    out, and with them more than half of the network's multiply-adds.

    Args:
        in_channels: of x.
        features: f, of the output and of the state.
    """

    def __init__(self, in_channels: int, features: int) -> None:
        super().__init__()
        self.features = features
        self.gates = nn.Conv2d(in_channels + features, 4 * features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(1, 1, 1, 1).expand(x.shape[0], self.features, x.shape[2], x.shape[3])
        i, j, _, o = self.gates(torch.cat([x, state], dim=1)).chunk(4, dim=1)  # (B, f, h, w)
        return (i.sigmoid() * j.tanh()).tanh() * o.sigmoid()


class ResidualMemory(nn.Sequential):
    """Coarse fusion at one scale: convolution to C/2 channels, ConvLSTM, convolution back, (B, C, h, w) -> the same."""

    def __init__(self, width: int, features: int) -> None:
        super().__init__(
            SameConv(width, width // 2), ConvLSTM(width // 2, features), SameConv(features, width)
        )  # fmt: skip


class RCAB(nn.Module):
    """Residual channel attention block: x + y sigmoid(W2 PReLU(W1 mean_hw(y))), (B, C, h, w) -> the same.

    y = conv3x3(PReLU(conv3x3(x))). All with bias, unlike the rest of the network.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), prelu(width), nn.Conv2d(width, width, 3, padding=1)
        )
        self.attention = nn.Sequential(
            nn.Conv2d(width, width // SQUEEZE, 1), prelu(width // SQUEEZE),
            nn.Conv2d(width // SQUEEZE, width, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + y * self.attention(y.mean(dim=(2, 3), keepdim=True))


class URAB(nn.Module):
    """U-shaped residual attention block, (B, C, h, w) -> the same: d = halve(x), out = double([d, RCABs(d)])."""

    def __init__(self, width: int, rcabs: int) -> None:
        super().__init__()
        self.down = Halve(width)
        self.body = nn.Sequential(*(RCAB(width) for _ in range(rcabs)))
        self.up = Double(width * 2, width)

    def forward(self, x: Tensor) -> Tensor:
        d = self.down(x)  # (B, C, ceil(h/2), ceil(w/2))
        return self.up(torch.cat([d, self.body(d)], dim=1), x.shape[-2:])


class ProgressiveFusion(nn.Module):
    """Fusion from the coarsest to the finest scale; the coarse and the fine fusion differ in F_s alone.

        y_4 = F_4(x_4) + x_4
        u_42 = double(y_4);    y_2 = F_2(x_2 + u_42) + x_2
        u_41 = double(u_42), u_21 = double(y_2);    y_1 = F_1(x_1 + u_21 + u_41) + x_1

    Args:
        width: C.
        blocks: F_4, F_2, F_1, each (B, C, h, w) -> the same.

    Shape: x_4, x_2, x_1, (B, C, H/4, W/4) to (B, C, H, W) -> y_4, y_2, y_1 of these shapes.
    """

    def __init__(self, width: int, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.block4, self.block2, self.block1 = blocks
        self.up42, self.up41, self.up21 = (Double(width, width) for _ in range(3))

    def forward(self, x4: Tensor, x2: Tensor, x1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y4 = self.block4(x4) + x4
        u42 = self.up42(y4)  # (B, C, H/2, W/2)
        y2 = self.block2(x2 + u42) + x2
        u41, u21 = self.up41(u42), self.up21(y2)  # (B, C, H, W)
        y1 = self.block1(x1 + u21 + u41) + x1
        return y4, y2, y1


class Reconstruction(nn.Module):
    """The rain streaks from the features before (m) and after (q) the fine fusion, -> (B, 3, H, W) in units of [-1, 1].

    p_s = conv([q_s, m_s]);  streaks = conv(conv([p_1, double([double(p_4), p_2])]))

    Each convolution but the last has a PReLU.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fuse4, self.fuse2, self.fuse1 = (SameConv(width * 2, width) for _ in range(3))
        self.up42 = Double(width, width)
        self.up21 = Double(width * 2, width)
        self.refine = SameConv(width * 2, width // 2)
        self.output = nn.Conv2d(width // 2, 3, 3, padding=1, bias=False)

    def forward(self, q: Sequence[Tensor], m: Sequence[Tensor]) -> Tensor:
        fusions = (self.fuse4, self.fuse2, self.fuse1)
        p4, p2, p1 = (fuse(torch.cat(pair, dim=1)) for fuse, pair in zip(fusions, zip(q, m, strict=True), strict=True))
        w42 = self.up42(p4)  # (B, C, H/2, W/2)
        w21 = self.up21(torch.cat([w42, p2], dim=1))  # (B, C, H, W)
        return self.output(self.refine(torch.cat([p1, w21], dim=1)))


@register(ARCH_REGISTRY)
class MSPFN(nn.Module):
    """The multi-scale progressive fusion network: clean = rain - streaks.

        r_s = PReLU(conv(x_s)), x_s the mean of s x s pixels, s = 4, 2, 1
        m = coarse fusion(r)
        q = unit_n(... unit_1(m)), the fine fusion
        streaks = reconstruction(q, m)

    Convolutions begin with Glorot's uniform distribution and biases of 0, the LSTMs' kernels with a normal one of
    deviation 1e-3 cut off at twice that (their biases with 0: our choice).

    Args:
        width: C, a multiple of 4.
        units: of the fine fusion.
        rcabs: RCABs in each URAB at the scales 4, 2 and 1; (1, 3, 3) in the release's training file.

    Shape: (B, 3, H, W) in [0, 1] -> the same; not clamped. H and W multiples of 4.
    """

    size_multiple = 4
    block_types = (ProgressiveFusion,)  # whose activations `train.checkpoint_blocks` computes anew

    def __init__(self, width: int = 64, units: int = 17, rcabs: Sequence[int] = (1, 1, 1)) -> None:
        super().__init__()
        if width < SQUEEZE or width % SQUEEZE:
            raise ValueError(f'width: {width} is not a multiple of {SQUEEZE}; the published network has 64')
        if units < 1:
            raise ValueError(f'units: {units} leaves no fine fusion; the published network has 17')
        if len(rcabs) != len(MEMORY) or min(rcabs) < 1:
            raise ValueError(f'rcabs: {list(rcabs)}, wanted one number from 1 up for each of the scales 4, 2, 1')
        self.stem4, self.stem2, self.stem1 = (SameConv(3, width) for _ in range(3))
        self.coarse = ProgressiveFusion(width, [ResidualMemory(width, width * factor) for factor in MEMORY.values()])
        self.fine = nn.ModuleList(
            ProgressiveFusion(width, [URAB(width, number) for number in rcabs]) for _ in range(units)
        )
        self.reconstruction = Reconstruction(width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as the release does."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, ConvLSTM):
                bound = 2 * LSTM_INIT_STD
                nn.init.trunc_normal_(module.gates.weight, std=LSTM_INIT_STD, a=-bound, b=bound)

    def forward(self, rain: Tensor) -> Tensor:
        x = 2 * rain - 1
        r = self.stem4(F.avg_pool2d(x, 4)), self.stem2(F.avg_pool2d(x, 2)), self.stem1(x)
        m = self.coarse(*r)  # (B, C, H/4, W/4), (B, C, H/2, W/2), (B, C, H, W)
        q = m
        for unit in self.fine:
            q = unit(*q)
        return rain - self.reconstruction(q, m) / 2  # / 2: from [-1, 1] to [0, 1]
