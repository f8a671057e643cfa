"""NAFNet: simple baselines for image restoration (https://arxiv.org/abs/2204.04676).

Written from the paper's and the release's description. The release restores noisy and blurred photos; nobody has
published weights or a recipe of the authors for rain, so the option files train it with recipes of this project.

Shapes: B batch, C channels of a level, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ddsa_arch.archs.blocks.norm import ChannelLayerNorm
from ddsa_arch.registration import register

NORM_EPSILON = 1e-6


class SimpleGate(nn.Module):
    """SimpleGate(X, Y) = X * Y for the two halves of the channels (equation 4), (B, 2C, H, W) -> (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return first * second


class NAFBlock(nn.Module):
    """The block without activation functions (Fig. 3c), (B, C, H, W) -> (B, C, H, W).

        Y = X + beta * W3(SCA(SimpleGate(DW(W1(LN(X)))))),    SCA(Z) = Z * W(mean of Z over H, W)  (equation 5)
        out = Y + gamma * W5(SimpleGate(W4(LN(Y))))

    beta and gamma, one number for each channel, begin at 0: an untrained block is the identity.

    Args:
        dim: channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.zeros(1, dim, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, dim, 1, 1))
        self.conv1 = nn.Conv2d(dim, 2 * dim, 1)
        self.conv2 = nn.Conv2d(2 * dim, 2 * dim, 3, padding=1, groups=2 * dim)
        self.conv3 = nn.Conv2d(dim, dim, 1)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(dim, dim, 1))
        self.gate = SimpleGate()
        self.conv4 = nn.Conv2d(dim, 2 * dim, 1)
        self.conv5 = nn.Conv2d(dim, dim, 1)
        self.norm1 = ChannelLayerNorm(dim, eps=NORM_EPSILON)
        self.norm2 = ChannelLayerNorm(dim, eps=NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.gate(self.conv2(self.conv1(self.norm1(x))))  # (B, C, H, W)
        x = x + self.beta * self.conv3(mixed * self.sca(mixed))
        return x + self.gamma * self.conv5(self.gate(self.conv4(self.norm2(x))))


@register(ARCH_REGISTRY)
class NAFNet(nn.Module):
    """The U-shaped network of blocks without activation functions: I_restored = I + R, the network predicts R.

    A level has half the side and twice the channels of the level above. Skips are added, not concatenated. An image
    whose sides are not multiples of 2^levels is padded inside, with zeros at the bottom and on the right, and these
    zeros are part of what the global means see.

    Convolutions begin as PyTorch initialises them, norms at 1.

    Args:
        img_channel: channels of input and output.
        width: channels at full resolution.
        middle_blk_num: blocks at the lowest resolution, >= 0.
        enc_blk_nums: blocks of the encoder's levels, from full resolution down; as many levels as entries.
        dec_blk_nums: of the decoder's, from the lowest level up.

    Shape: (B, img_channel, H, W) in [0, 1] -> the same; any H and W; not clamped.

    Raises:
        ValueError: ``enc_blk_nums`` and ``dec_blk_nums`` have unequal lengths.
    """

    size_multiple = 1
    block_types = (NAFBlock,)
    compiled_types = (NAFBlock,)

    def __init__(
        self,
        img_channel: int = 3,
        width: int = 32,
        middle_blk_num: int = 12,
        enc_blk_nums: Sequence[int] = (2, 2, 4, 8),
        dec_blk_nums: Sequence[int] = (2, 2, 2, 2),
    ) -> None:
        super().__init__()
        levels = len(enc_blk_nums)
        self.inner_multiple = 1 << levels  # to which the forward pads by itself
        if len(dec_blk_nums) != levels:
            raise ValueError(
                f'dec_blk_nums: {list(dec_blk_nums)} has {len(dec_blk_nums)} entries and enc_blk_nums {levels}; '
                'wanted one for each level'
            )

        def stage(dim: int, blocks: int) -> nn.Sequential:
            return nn.Sequential(*(NAFBlock(dim) for _ in range(blocks)))

        dims = [width << level for level in range(levels + 1)]
        self.intro = nn.Conv2d(img_channel, width, 3, padding=1)
        self.ending = nn.Conv2d(width, img_channel, 3, padding=1)
        self.encoders = nn.ModuleList(stage(dim, blocks) for dim, blocks in zip(dims, enc_blk_nums, strict=False))
        self.decoders = nn.ModuleList(
            stage(dim, blocks) for dim, blocks in zip(dims[-2::-1], dec_blk_nums, strict=True)
        )
        self.middle_blks = stage(dims[-1], middle_blk_num)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, 2 * dim, 1, bias=False), nn.PixelShuffle(2)) for dim in dims[:0:-1]
        )
        self.downs = nn.ModuleList(nn.Conv2d(dim, 2 * dim, 2, stride=2) for dim in dims[:-1])

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        multiple = self.inner_multiple
        # torch.export knows that a multiple of a rounded-up quotient halves, and does not know it of a remainder
        right, bottom = ((side + multiple - 1) // multiple * multiple - side for side in (width, height))
        features, skips = self.intro(F.pad(x, (0, right, 0, bottom))), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            features = encoder(features)
            skips.append(features)
            features = down(features)
        features = self.middle_blks(features)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            features = decoder(up(features) + skips.pop())
        return F.pad(self.ending(features), (0, -right, 0, -bottom)) + x
