"""DRSformer: learning a sparse Transformer network for image deraining (https://arxiv.org/abs/2303.11950).

Written from the paper's and the release's description; argument and attribute names are those of the release, so that
its weights can be used. The skeleton is Restormer's (https://arxiv.org/abs/2111.09881).

Shapes: B batch, C channels, h heads, d = C / h channels per head, H x W pixels, N = H * W.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ddsa_arch.archs.blocks import precision
from ddsa_arch.archs.blocks.gated_feedforward import hidden_width
from ddsa_arch.archs.blocks.transformer_unet import TransformerUNet, check_residual
from ddsa_arch.archs.blocks.transposed_attention import MDTA, TransformerBlock, norm_has_bias
from ddsa_arch.registration import register

KEEP_RATIOS = ((1, 2), (2, 3), (3, 4), (4, 5))  # of a row of scores, for the four branches of TKSA
STEPS = 4  # of MEFC, one after the other
EXPERTS = 8  # operations side by side in a step


def below_top_k(scores: Tensor, kept: Sequence[int]) -> list[Tensor]:
    """Where a score is below the k-th largest of its row: bool, of the shape of ``scores``, one for each k.

    Args:
        scores: ``(B, h, d, d)``, any range.
        kept: the k, ``1 <= k <= d``. Scores that tie with the k-th largest all stay.
    """
    ranked = scores.topk(max(kept), dim=-1).values  # descending
    return [scores < ranked[..., k - 1 : k] for k in kept]


class TKSA(MDTA):
    """Top-k sparse attention, (B, C, H, W) -> (B, C, H, W): MDTA with another map.

    Each branch lets a row keep its k largest scores, for k = d/2, 2d/3, 3d/4 and 4d/5, and the softmax gives the
    others the weight 0. Not the k are learned but the factors of the four branches, each 0.2 at first:

        out = sum_j attn_j softmax(top_k_j(scores)) v

    Scores that tie with the k-th largest are all kept, where the published code picks as many of them as make k.

    Args:
        dim: channels C, a multiple of ``heads``, with at least two for each head.
        heads: h.
        bias: bias in the convolutions.
    """

    def __init__(self, dim: int, heads: int, bias: bool = False) -> None:
        super().__init__(dim, heads, bias)
        width = dim // heads
        if width < 2:
            raise ValueError(f'heads: {heads} leave {width} of {dim} channels each, and half of it is none; try fewer')
        self.kept = [width * part // whole for part, whole in KEEP_RATIOS]
        self.attn1, self.attn2, self.attn3, self.attn4 = (nn.Parameter(torch.full((1,), 0.2)) for _ in KEEP_RATIOS)

    def attend(self, scores: Tensor, v: Tensor) -> Tensor:
        first, *others = (weights @ v for weights in self.attention_maps(scores))
        return sum(others, first)

    def attention_maps(self, scores: Tensor) -> list[Tensor]:
        """The four weighted sparse maps, (B, h, d, d) each from scores of that shape."""
        factors = (self.attn1, self.attn2, self.attn3, self.attn4)
        return [
            factor * scores.masked_fill(below, -math.inf).softmax(dim=-1)
            for factor, below in zip(factors, below_top_k(scores, self.kept), strict=True)
        ]


class MSFN(nn.Module):
    """Mixed-scale feed-forward network, (B, C, H, W) -> (B, C, H, W).

        p1, p2 = split(ReLU(DW3x3(u)));  r1, r2 = split(ReLU(DW5x5(u)));  u = conv1x1(x)
        out = conv1x1([ReLU(conv3x3([p1, r1])), ReLU(conv5x5([p2, r2]))])

    The last 3x3 and 5x5 convolutions are grouped in pairs of neighbours of the concatenation: two channels of p1 or
    two of r1, and one of each only where they meet.

    Args:
        dim: channels C.
        expansion: width of each of the four parts over C, cut off to an integer.
        bias: bias in the convolutions.
    """

    def __init__(self, dim: int, expansion: float = 2.66, bias: bool = False) -> None:
        super().__init__()
        hidden = hidden_width(dim, expansion)
        double = hidden * 2
        self.project_in = nn.Conv2d(dim, double, 1, bias=bias)
        self.dwconv3x3 = nn.Conv2d(double, double, 3, padding=1, groups=double, bias=bias)
        self.dwconv5x5 = nn.Conv2d(double, double, 5, padding=2, groups=double, bias=bias)
        self.dwconv3x3_1 = nn.Conv2d(double, hidden, 3, padding=1, groups=hidden, bias=bias)
        self.dwconv5x5_1 = nn.Conv2d(double, hidden, 5, padding=2, groups=hidden, bias=bias)
        self.project_out = nn.Conv2d(double, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        u = self.project_in(x)
        p1, p2 = F.relu(self.dwconv3x3(u)).chunk(2, dim=1)  # (B, hidden, H, W) each
        r1, r2 = F.relu(self.dwconv5x5(u)).chunk(2, dim=1)
        t1 = F.relu(self.dwconv3x3_1(torch.cat([p1, r1], dim=1)))
        t2 = F.relu(self.dwconv5x5_1(torch.cat([p2, r2], dim=1)))
        return self.project_out(torch.cat([t1, t2], dim=1))


def depthwise_separable(dim: int, kernel: int, dilation: int = 1) -> tuple[nn.Conv2d, nn.Conv2d]:
    """A depth-wise convolution that keeps the shape and a 1x1 convolution, both without bias."""
    padding = dilation * (kernel - 1) // 2
    depthwise = nn.Conv2d(dim, dim, kernel, padding=padding, dilation=dilation, groups=dim, bias=False)
    return depthwise, nn.Conv2d(dim, dim, 1, bias=False)


def under_op(*layers: nn.Module) -> nn.Sequential:
    """Layers one after the other, under the key ``op`` of the published weights."""
    return nn.Sequential(OrderedDict(op=nn.Sequential(*layers)))


class DilatedConv(nn.Sequential):
    """A depth-wise convolution of dilation 2 and a 1x1 convolution, (B, C, H, W) -> the same."""

    op: nn.Sequential

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__(OrderedDict(op=nn.Sequential(*depthwise_separable(dim, kernel, dilation=2))))

    def forward(self, x: Tensor) -> Tensor:
        depthwise, pointwise = self.op
        # with bfloat16 in channels_last, PyTorch 2.13 leaves the gradient of these weights uninitialised on a CPU
        with torch.autocast('cpu', enabled=False):
            x = depthwise(precision.full_precision_on_cpu(x))
        return pointwise(x)


def experts(dim: int) -> list[nn.Module]:
    """The eight operations of a step: separable convolutions of four sizes, dilated ones of three, average pooling."""
    separable = [
        under_op(*depthwise_separable(dim, kernel), nn.ReLU(), *depthwise_separable(dim, kernel))
        for kernel in (1, 3, 5, 7)
    ]
    dilated = [DilatedConv(dim, kernel) for kernel in (3, 5, 7)]
    return [*separable, *dilated, nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)]


class ExpertGate(nn.Module):
    """How much each expert counts at each step, from the mean of an image: (B, C, H, W) -> (B, 4, 8).

    softmax(linear(ReLU(linear(mean)))); the weights of a step add up to 1.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        outputs = STEPS * EXPERTS
        self.ca_fc = nn.Sequential(nn.Linear(dim, outputs * 2), nn.ReLU(), nn.Linear(outputs * 2, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.ca_fc(x.mean(dim=(2, 3))).unflatten(1, (STEPS, EXPERTS)).softmax(dim=-1)


class ExpertStep(nn.Module):
    """One step of MEFC: s -> ReLU(ReLU(conv1x1([w_1 op_1(s), ..., w_8 op_8(s)])) + s), for s of (B, C, H, W).

    ``forward`` takes s and the weights w of the experts, (B, 8).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self._ops = nn.ModuleList(experts(dim))
        self._out = nn.Sequential(nn.Conv2d(dim * EXPERTS, dim, 1, bias=False))

    def forward(self, s: Tensor, weights: Tensor) -> Tensor:
        weighed = [op(s) * weights[:, j, None, None, None] for j, op in enumerate(self._ops)]
        return F.relu(F.relu(self._out(torch.cat(weighed, dim=1))) + s)


class ExpertSteps(nn.Module):
    """The trunk of MEFC, (B, C, H, W) and weights (B, 4, 8) -> (B, C, H, W): ReLU(conv1x1(x)), then the four steps."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.preprocess = under_op(nn.Conv2d(dim, dim, 1, bias=False), nn.ReLU())
        self._ops = nn.ModuleList(ExpertStep(dim) for _ in range(STEPS))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        s = self.preprocess(x)
        for i, step in enumerate(self._ops):
            s = step(s, weights[:, i])
        return s


class MEFC(nn.Module):
    """Mixture of experts feature compensator (MEFC), (B, C, H, W) -> (B, C, H, W).

    The gate looks at the module's input once and serves all four steps.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([ExpertGate(dim), ExpertSteps(dim)])

    def forward(self, x: Tensor) -> Tensor:
        gate, steps = self.layers
        return steps(x, gate(x))


@register(ARCH_REGISTRY)
class DRSformer(TransformerUNet):
    """The sparse deraining Transformer: derained = rain + R, the network predicts R.

    Restormer's four levels (see TransformerUNet) with TKSA and MSFN in the blocks, and an MEFC before the first level
    and after the last, with no skip around it.

    Convolutions and linear layers begin as PyTorch initialises them, norms and temperatures at 1, attn_j at 0.2.

    Args:
        inp_channels: of the image.
        out_channels: of the output; those of the image.
        dim: channels at full resolution, even.
        num_blocks: Transformer blocks of the levels 1 to 4; encoder and decoder have the same number.
        heads: attention heads of the levels 1 to 4.
        ffn_expansion_factor: hidden width of the feed-forward networks over their input's.
        bias: bias in the convolutions, but for those of MEFC, which have none.
        LayerNorm_type: ``WithBias``, or ``BiasFree``, which does not subtract the mean either.
        mefc: False leaves both MEFC out, as the networks published for Rain200L and SPA-Data.

    Shape: (B, inp_channels, H, W) in [0, 1] -> the same; H and W multiples of 8; not clamped.
    """

    block_types = (TransformerBlock, ExpertStep)  # whose activations `train.checkpoint_blocks` computes anew
    compiled_types = (TransformerBlock, ExpertStep)  # which `train.compile` compiles, each for itself

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: str = 'WithBias',
        mefc: bool = True,
    ) -> None:
        check_residual(inp_channels, out_channels)
        norm_bias = norm_has_bias(LayerNorm_type)

        def block(channels: int, heads: int) -> TransformerBlock:
            attention, feed_forward = TKSA(channels, heads, bias), MSFN(channels, ffn_expansion_factor, bias)
            return TransformerBlock(channels, attention, feed_forward, norm_bias)

        super().__init__(inp_channels, out_channels, dim, num_blocks, heads, bias, block)
        self.encoder_level0 = MEFC(dim) if mefc else nn.Identity()
        self.refinement = MEFC(dim * 2) if mefc else nn.Identity()

    def forward(self, rain: Tensor) -> Tensor:
        x = self.encoder_level0(self.patch_embed(rain))  # (B, dim, H, W)
        return rain + self.output(self.refinement(self.levels(x)))
