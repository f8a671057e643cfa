"""Restormer: efficient Transformer for high-resolution image restoration (https://arxiv.org/abs/2111.09881).

Written from the paper's and the release's description; argument and attribute names are those of the release, so that
its options and weights can be used.

Shapes: B batch, H x W pixels. MDTA and GDFN, the parts of a block, are shared with other networks: see archs/blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ddsa_arch.archs.blocks.gated_feedforward import GDFN
from ddsa_arch.archs.blocks.transformer_unet import TransformerUNet, check_residual
from ddsa_arch.archs.blocks.transposed_attention import MDTA, TransformerBlock, norm_has_bias
from ddsa_arch.registration import register


@register(ARCH_REGISTRY)
class Restormer(TransformerUNet):
    """The Transformer of Fig. 2: I_restored = I + R, the network predicts R.

    Four levels of blocks (see TransformerUNet), and a refinement stage at full resolution.

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

    block_types = (TransformerBlock,)  # whose activations `train.checkpoint_blocks` computes anew in the backward pass
    compiled_types = (TransformerBlock,)  # which `train.compile` compiles, each for itself

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
        if not dual_pixel_task:
            check_residual(inp_channels, out_channels)
        norm_bias = norm_has_bias(LayerNorm_type)

        def block(channels: int, heads: int) -> TransformerBlock:
            attention, feed_forward = MDTA(channels, heads, bias), GDFN(channels, ffn_expansion_factor, bias)
            return TransformerBlock(channels, attention, feed_forward, norm_bias)

        super().__init__(inp_channels, out_channels, dim, num_blocks, heads, bias, block)
        self.refinement = nn.Sequential(*(block(dim * 2, heads[0]) for _ in range(num_refinement_blocks)))
        self.skip_conv = nn.Conv2d(dim, dim * 2, 1, bias=bias) if dual_pixel_task else None

    def forward(self, rain: Tensor) -> Tensor:
        x = self.patch_embed(rain)  # (B, dim, H, W)
        y = self.refinement(self.levels(x))  # (B, 2 dim, H, W)
        if self.skip_conv is not None:
            return self.output(y + self.skip_conv(x))
        return rain + self.output(y)
