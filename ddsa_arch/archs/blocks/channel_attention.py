"""Channel attention of RCAN (https://arxiv.org/abs/1807.02758), as MPRNet and its successors use it.

The names ``CA``, ``conv_du`` and ``body`` are those of the published weights.
"""

from __future__ import annotations

from torch import Tensor, nn


def same_conv(in_channels: int, out_channels: int, kernel_size: int, bias: bool = False) -> nn.Conv2d:
    """A convolution with zero padding that keeps H and W."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f'kernel_size: {kernel_size} cannot keep the size of the image; take an odd number, such as 3')
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)


class CA(nn.Module):
    """Weighs every channel by what its mean says: x * sigmoid(W2 relu(W1 mean_HW(x))), (B, C, H, W) -> the same.

    The mean goes over the whole of what is passed in, so a tile or a half of an image is weighed differently.

    Args:
        channels: C.
        reduction: the hidden width is C // reduction.
        bias: bias in the two 1x1 convolutions.
    """

    def __init__(self, channels: int, reduction: int = 4, bias: bool = False) -> None:
        super().__init__()
        if not 1 <= reduction <= channels:
            raise ValueError(
                f'reduction: {reduction} leaves no hidden channel of {channels}; take one between 1 and {channels}'
            )
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, channels // reduction, 1, bias=bias),
            nn.ReLU(),
            nn.Conv2d(channels // reduction, channels, 1, bias=bias),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv_du(x.mean(dim=(2, 3), keepdim=True))


class CAB(nn.Module):
    """Channel attention block: x + CA(conv(activation(conv(x)))), (B, C, H, W) -> the same.

    Args:
        channels: C.
        activation: handed in, as the networks share one PReLU among their blocks. It is registered under every block,
            so the state dict names its slope once for each.
        kernel_size: of the two convolutions, odd.
        reduction: see CA.
        bias: bias in all convolutions.
    """

    def __init__(
        self, channels: int, activation: nn.Module, kernel_size: int = 3, reduction: int = 4, bias: bool = False
    ) -> None:
        super().__init__()
        self.CA = CA(channels, reduction, bias)
        self.body = nn.Sequential(
            same_conv(channels, channels, kernel_size, bias),
            activation,
            same_conv(channels, channels, kernel_size, bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.CA(self.body(x))
