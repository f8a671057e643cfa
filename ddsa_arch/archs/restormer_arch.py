"""Restormer: efficient Transformer for high-resolution image restoration (https://arxiv.org/abs/2111.09881).

Written from the paper's and the release's description; argument and attribute names are those of the release, so that
its options and weights can be used.

Shapes: B batch, H x W pixels. MDTA and GDFN, the parts of a block, are shared with other networks: see archs/blocks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ddsa_arch.archs.blocks.gated_feedforward import GDFN
from ddsa_arch.archs.blocks.resample import Downsample, Upsample, under_body
from ddsa_arch.archs.blocks.transposed_attention import MDTA, TransformerBlock, norm_has_bias

LEVELS = 4


@ARCH_REGISTRY.register()
class Restormer(nn.Module):
    """The Transformer of Fig. 2: I_restored = I + R, the network predicts R.

    Four levels with dim, 2 dim, 4 dim and 8 dim channels at 1, 1/2, 1/4 and 1/8 of the resolution. A decoder joins
    the encoder's features of its level by concatenation and a 1x1 convolution, but for level 1, which stays at 2 dim
    channels; the refinement stage follows there.

    Convolutions begin as PyTorch initialises them, norms and temperatures at 1.

    Args:
        inp_channels: of the input.
        out_channels: of the output; those of the input, unless ``dual_pixel_task``.
        dim: channels at full resolution, even.
        num_blocks: Transformer blocks of the levels 1 to 4; encoder and decoder have the same number.
        num_refinement_blocks: blocks after decoder level 1.
        heads: attention heads of the levels 1 to 4.
        ffn_expansion_factor: hidden width of the feed-forward networks over their input's.
        bias: bias in the convolutions, all of them.
        LayerNorm_type: ``WithBias``, or ``BiasFree``, which does not subtract the mean either.
        dual_pixel_task: for two views in one input: not the input is added to the output, but a 1x1 convolution of
            the first features to those before the last layer.

    Shape: (B, inp_channels, H, W) in [0, 1] -> (B, out_channels, H, W); H and W multiples of 8; not clamped.
    """

    size_multiple = 8
    block_types = (TransformerBlock,)  # whose activations `train.checkpoint_blocks` computes anew in the backward pass

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: str = 'WithBias',
        dual_pixel_task: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (('num_blocks', num_blocks), ('heads', heads)):
            if len(value) != LEVELS:
                raise ValueError(f'{name}: {list(value)} has {len(value)} entries; one for each of the {LEVELS} levels')
        if dim % 2:
            raise ValueError(f'dim: {dim} is odd, and the levels halve it; try {dim + 1}')
        if inp_channels != out_channels and not dual_pixel_task:
            raise ValueError(
                f'out_channels: {out_channels} is not inp_channels {inp_channels}, and the input is added to the '
                f'output; try out_channels {inp_channels}'
            )
        norm_bias = norm_has_bias(LayerNorm_type)

        def blocks(count: int, channels: int, heads: int) -> nn.Sequential:
            return nn.Sequential(*(
                TransformerBlock(
                    channels, MDTA(channels, heads, bias), GDFN(channels, ffn_expansion_factor, bias), norm_bias
                )
                for _ in range(count)
            ))  # fmt: skip

        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(inp_channels, dim, 3, padding=1, bias=bias)))
        self.encoder_level1 = blocks(num_blocks[0], dim, heads[0])
        self.down1_2 = under_body(Downsample(dim, bias))
        self.encoder_level2 = blocks(num_blocks[1], dim * 2, heads[1])
        self.down2_3 = under_body(Downsample(dim * 2, bias))
        self.encoder_level3 = blocks(num_blocks[2], dim * 4, heads[2])
        self.down3_4 = under_body(Downsample(dim * 4, bias))
        self.latent = blocks(num_blocks[3], dim * 8, heads[3])
        self.up4_3 = under_body(Upsample(dim * 8, bias))
        self.reduce_chan_level3 = nn.Conv2d(dim * 8, dim * 4, 1, bias=bias)
        self.decoder_level3 = blocks(num_blocks[2], dim * 4, heads[2])
        self.up3_2 = under_body(Upsample(dim * 4, bias))
        self.reduce_chan_level2 = nn.Conv2d(dim * 4, dim * 2, 1, bias=bias)
        self.decoder_level2 = blocks(num_blocks[1], dim * 2, heads[1])
        self.up2_1 = under_body(Upsample(dim * 2, bias))
        self.decoder_level1 = blocks(num_blocks[0], dim * 2, heads[0])
        self.refinement = blocks(num_refinement_blocks, dim * 2, heads[0])
        self.skip_conv = nn.Conv2d(dim, dim * 2, 1, bias=bias) if dual_pixel_task else None
        self.output = nn.Conv2d(dim * 2, out_channels, 3, padding=1, bias=bias)

    def forward(self, rain: Tensor) -> Tensor:
        x0 = self.patch_embed(rain)  # (B, dim, H, W)
        x1 = self.encoder_level1(x0)
        x2 = self.encoder_level2(self.down1_2(x1))  # (B, 2 dim, H/2, W/2)
        x3 = self.encoder_level3(self.down2_3(x2))  # (B, 4 dim, H/4, W/4)
        x4 = self.latent(self.down3_4(x3))  # (B, 8 dim, H/8, W/8)
        y3 = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(x4), x3], dim=1)))
        y2 = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(y3), x2], dim=1)))
        y1 = self.refinement(self.decoder_level1(torch.cat([self.up2_1(y2), x1], dim=1)))  # (B, 2 dim, H, W)
        if self.skip_conv is not None:
            return self.output(y1 + self.skip_conv(x0))
        return rain + self.output(y1)
