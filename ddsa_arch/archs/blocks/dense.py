"""Dense block and transition of DID-MDN (https://arxiv.org/abs/1802.07412), which UMRL takes over.

Written from the papers' and the releases' description. Attribute names are the releases', whose weights load without
conversion.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddsa_arch.archs.blocks import precision

SLOPE = 0.2  # of every leaky ReLU of both networks
RESAMPLINGS: dict[str, Callable[[], nn.Module]] = {
    'same': nn.Identity,
    'down': lambda: nn.AvgPool2d(2),
    'up': lambda: nn.Upsample(scale_factor=2),
}


class DenseBlock(nn.Module):
    """B_k(c, g): [x, conv_k(relu(bn(conv1x1(relu(bn(x))))))], (B, c, H, W) -> (B, c + g, H, W).

    The 1x1 convolution leads to 4g channels.

    Args:
        channels: c.
        growth: g, channels that are added.
        kernel_size: k, odd.
    """

    def __init__(self, channels: int, growth: int, kernel_size: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.bn1(x), inplace=True))  # (B, 4g, H, W)
        y = self.conv2(F.relu(self.bn2(y), inplace=True))  # (B, g, H, W)
        return torch.cat([x, y], dim=1)


class Transition(nn.Module):
    """T(c, o, mode): resample(conv1x1(relu(bn(x)))), (B, c, H, W) -> (B, o, H', W').

    Args:
        in_channels: c.
        out_channels: o.
        resample: ``same``; ``down`` to half the size by the mean of 2 x 2 pixels; ``up`` to twice the size by
            repeating pixels.
    """

    def __init__(self, in_channels: int, out_channels: int, resample: str = 'same') -> None:
        super().__init__()
        if resample not in RESAMPLINGS:
            known = ', '.join(map(repr, RESAMPLINGS))
            raise ValueError(f'resample: {resample!r} is not known; choose one of {known}')
        self.bn1 = nn.BatchNorm2d(in_channels)
        # transposed as published, which for 1x1 only turns the weight round: (in, out, 1, 1)
        self.conv1 = nn.ConvTranspose2d(in_channels, out_channels, 1, bias=False)
        self.resample = RESAMPLINGS[resample]()

    def forward(self, x: Tensor) -> Tensor:
        return self.resample(self.conv1(F.relu(self.bn1(x), inplace=True)))


def dense_level(
    channels: int, growth: int, out_channels: int, resample: str, kernel_size: int
) -> tuple[DenseBlock, Transition]:
    """B_k(channels, growth) and the transition T(channels + growth, out_channels, resample) that follows it."""
    return DenseBlock(channels, growth, kernel_size), Transition(channels + growth, out_channels, resample)


def image_from(features: Tensor, conv1: nn.Conv2d, conv2: nn.Conv2d) -> Tensor:
    """tanh(conv2(lrelu(conv1(features)))), an image or a residual in [-1, 1]; float32 under autocast."""
    return precision.full_precision(conv2(F.leaky_relu(conv1(features), SLOPE))).tanh()


def keep_unused(net: nn.Module, **modules: nn.Module) -> None:
    """Give a network modules that stand in its published weights and take no part in what it computes.

    They are frozen, so that no optimiser waits for a gradient.
    """
    for name, module in modules.items():
        net.add_module(name, module.requires_grad_(False))
