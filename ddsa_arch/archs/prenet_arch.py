"""PReNet, PRN, PReNet_r and PRN_r: progressive image deraining networks (https://arxiv.org/abs/1901.09221).

Written from the paper's and the release's description. Attribute names are the release's, whose weights load without
conversion. One small network is passed T times; each time it sees the rainy image y beside its own last estimate x.

Shapes: B batch, C = width channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ddsa_arch.registration import register


def same_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3x3 convolution with bias that keeps H and W."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


class ResidualBlock(nn.Sequential):
    """relu(R(f) + f) with R = relu(conv(relu(conv(f)))), (B, C, H, W) -> the same.

    R ends with a ReLU of its own, so a block can only add to its input.
    """

    def __init__(self, width: int) -> None:
        super().__init__(same_conv(width, width), nn.ReLU(inplace=True), same_conv(width, width), nn.ReLU(inplace=True))

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(super().forward(features) + features, inplace=True)


class ProgressiveNetwork(nn.Module):
    """T stages that share all weights, from x_0 = y and h_0 = c_0 = 0:

        f = relu(conv([y, x_{t-1}]))                        f_in
        h_t, c_t = LSTM([f, h_{t-1}], c_{t-1});  f = h_t    f_recurrent, only where ``recurrent``
        f = blocks(f)                                       f_res
        x_t = y + conv(f)                                   f_out

    Each stage adds to the rainy image, not to the earlier estimate. No estimate is clamped, not even on its way into
    the next stage. Convolutions begin as PyTorch initialises them.

    Args:
        stages: T. The number does not touch the weights.
        width: C.
        blocks: residual blocks of a stage; where ``recursive``, how often the one block is applied.

    Shape: (B, 3, H, W) in [0, 1] -> [x_1, ..., x_T] of the same shape, the last one final; any H and W; not clamped.
    """

    recurrent: bool  # a convolutional LSTM runs along the stages
    recursive: bool  # one residual block is applied again and again: the suffix _r

    size_multiple = 1
    block_types = (ResidualBlock,)  # whose activations `train.checkpoint_blocks` computes anew in the backward pass

    def __init__(self, stages: int = 6, width: int = 32, blocks: int = 5) -> None:
        super().__init__()
        for name, value, published in (('stages', stages, 6), ('width', width, 32), ('blocks', blocks, 5)):
            if value < 1:
                raise ValueError(f'{name}: {value} leaves nothing to pass; the published networks have {published}')
        self.stages, self.blocks = stages, blocks

        # the release keeps every convolution in an nn.Sequential, beside its activation: hence the 0 in the keys
        self.conv0 = nn.Sequential(same_conv(6, width), nn.ReLU(inplace=True))
        for k in range(1, 2 if self.recursive else blocks + 1):
            setattr(self, f'res_conv{k}', ResidualBlock(width))
        if self.recurrent:
            self.conv_i = nn.Sequential(same_conv(width * 2, width))
            self.conv_f = nn.Sequential(same_conv(width * 2, width))
            self.conv_g = nn.Sequential(same_conv(width * 2, width))
            self.conv_o = nn.Sequential(same_conv(width * 2, width))
        self.conv = nn.Sequential(same_conv(width, 3))

    def forward(self, rain: Tensor) -> list[Tensor]:
        x, state, images = rain, None, []
        for _ in range(self.stages):
            features = self.conv0(torch.cat([rain, x], dim=1))  # (B, C, H, W)
            if self.recurrent:
                state = self.lstm(features, state)
                features, _ = state
            x = rain + self.conv(self.residual(features))
            images.append(x)
        return images

    def lstm(self, features: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """A step of the convolutional LSTM, without peepholes; features, h and c are all (B, C, H, W).

            i, f, o = sigmoid(conv([features, h]));  g = tanh(conv([features, h]))
            c' = f c + i g;  h' = o tanh(c')

        Args:
            features: of this stage.
            state: h and c of the earlier stage; None is zeros.

        Returns:
            h' and c'.
        """
        h, c = state or (torch.zeros_like(features), torch.zeros_like(features))
        x = torch.cat([features, h], dim=1)
        i, f, g, o = self.conv_i(x), self.conv_f(x), self.conv_g(x), self.conv_o(x)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    def residual(self, features: Tensor) -> Tensor:
        for k in range(1, self.blocks + 1):
            block = self.get_submodule(f'res_conv{1 if self.recursive else k}')
            features = block(features)
        return features


@register(ARCH_REGISTRY)
class PReNet(ProgressiveNetwork):
    """The progressive recurrent network; see ProgressiveNetwork."""

    recurrent, recursive = True, False


@register(ARCH_REGISTRY)
class PReNet_r(ProgressiveNetwork):
    """PReNet with one residual block, applied again and again; see ProgressiveNetwork."""

    recurrent, recursive = True, True


@register(ARCH_REGISTRY)
class PRN(ProgressiveNetwork):
    """The progressive residual network: PReNet without the LSTM; see ProgressiveNetwork."""

    recurrent, recursive = False, False


@register(ARCH_REGISTRY)
class PRN_r(ProgressiveNetwork):
    """PRN with one residual block, applied again and again; see ProgressiveNetwork."""

    recurrent, recursive = False, True
