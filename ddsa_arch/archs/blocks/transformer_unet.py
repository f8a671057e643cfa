"""The skeleton of Restormer (https://arxiv.org/abs/2111.09881, Fig. 2), which DRSformer takes over.

The attribute names are those of the published weights.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ddsa_arch.archs.blocks.resample import Downsample, Upsample, under_body

LEVELS = 4

MakeBlock = Callable[[int, int], nn.Module]  # from channels and heads


class TransformerUNet(nn.Module):
    """Embedding, and four levels of blocks with dim, 2, 4, 8 x dim channels at 1, 1/2, 1/4, 1/8 of the resolution.

    The decoder joins the encoder's features of its level by concatenation and a 1x1 convolution, but for level 1, which
    stays at 2 dim channels. What comes before the levels and after them is the networks' own.

    Args:
        inp_channels: of the image.
        out_channels: of the output.
        dim: channels at full resolution, even.
        num_blocks: blocks of the levels 1 to 4; encoder and decoder have the same number.
        heads: attention heads of the levels 1 to 4.
        bias: bias in the convolutions.
        make_block: a block of so many channels and heads, (B, C, H, W) -> the same.
    """

    size_multiple = 8

    def __init__(
        self,
        inp_channels: int,
        out_channels: int,
        dim: int,
        num_blocks: Sequence[int],
        heads: Sequence[int],
        bias: bool,
        make_block: MakeBlock,
    ) -> None:
        super().__init__()
        for name, value in (('num_blocks', num_blocks), ('heads', heads)):
            if len(value) != LEVELS:
                raise ValueError(f'{name}: {list(value)} has {len(value)} entries; one for each of the {LEVELS} levels')
        if dim % 2:
            raise ValueError(f'dim: {dim} is odd, and the levels halve it; try {dim + 1}')

        def level(index: int, channels: int) -> nn.Sequential:
            return nn.Sequential(*(make_block(channels, heads[index]) for _ in range(num_blocks[index])))

        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(inp_channels, dim, 3, padding=1, bias=bias)))
        self.encoder_level1 = level(0, dim)
        self.down1_2 = under_body(Downsample(dim, bias))
        self.encoder_level2 = level(1, dim * 2)
        self.down2_3 = under_body(Downsample(dim * 2, bias))
        self.encoder_level3 = level(2, dim * 4)
        self.down3_4 = under_body(Downsample(dim * 4, bias))
        self.latent = level(3, dim * 8)
        self.up4_3 = under_body(Upsample(dim * 8, bias))
        self.reduce_chan_level3 = nn.Conv2d(dim * 8, dim * 4, 1, bias=bias)
        self.decoder_level3 = level(2, dim * 4)
        self.up3_2 = under_body(Upsample(dim * 4, bias))
        self.reduce_chan_level2 = nn.Conv2d(dim * 4, dim * 2, 1, bias=bias)
        self.decoder_level2 = level(1, dim * 2)
        self.up2_1 = under_body(Upsample(dim * 2, bias))
        self.decoder_level1 = level(0, dim * 2)
        self.output = nn.Conv2d(dim * 2, out_channels, 3, padding=1, bias=bias)

    def levels(self, x1: Tensor) -> Tensor:
        """All blocks, (B, dim, H, W) -> (B, 2 dim, H, W)."""
        x1 = self.encoder_level1(x1)
        x2 = self.encoder_level2(self.down1_2(x1))  # (B, 2 dim, H/2, W/2)
        x3 = self.encoder_level3(self.down2_3(x2))  # (B, 4 dim, H/4, W/4)
        y = self.latent(self.down3_4(x3))  # (B, 8 dim, H/8, W/8)
        y = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(y), x3], dim=1)))
        y = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(y), x2], dim=1)))
        return self.decoder_level1(torch.cat([self.up2_1(y), x1], dim=1))


def check_residual(inp_channels: int, out_channels: int) -> None:
    """Raise a ValueError unless the input can be added to the output."""
    if inp_channels != out_channels:
        raise ValueError(
            f'out_channels: {out_channels} is not inp_channels {inp_channels}, and the input is added to the '
            f'output; try out_channels {inp_channels}'
        )
