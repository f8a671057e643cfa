"""DDSANet: image deraining with dynamic dual self-attention (https://arxiv.org/abs/2308.07781).

Written from the paper; its equations are named where they are computed. Where the paper is silent we follow the
work it builds on, Restormer (https://arxiv.org/abs/2111.09881, its reference [9]) and DRSformer
(https://arxiv.org/abs/2303.11950, its reference [27]), and say so; each such choice is an argument or a constant.

Shapes: B batch, C channels, h heads, d = C / h channels per head, N = H * W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ddsa_arch.archs.blocks.attention import SpatialAttention
from ddsa_arch.archs.blocks.norm import ChannelLayerNorm
from ddsa_arch.archs.blocks.resample import Downsample, Upsample
from ddsa_arch.archs.blocks.transposed_attention import channel_scores, merge_heads, split_heads
from ddsa_arch.archs.weight_names import UNSEEN, as_tensor
from ddsa_arch.registration import register

RES2NET_SCALE = 3  # "we set the scale dimension to 3", section 2.3
KEEP_RATIO = 0.7  # "k is 0.7", section 2.2
HEADS = (1, 1, 2, 4, 8)
WIDTH_MULTIPLE = 8 * RES2NET_SCALE  # hidden widths that split in 3 and suit the hardware (our choice)


def one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    """Return ``value``, or raise a ValueError that names the argument and what it may be."""
    if value not in allowed:
        raise ValueError(f'{name}: {value!r} is not known; choose one of {", ".join(map(repr, allowed))}')
    return value


def top_k_per_row(keep_ratio: float, width: int) -> int:
    """How many scores of a row of ``width`` eq. (5) keeps: k = max(1, floor(keep_ratio * width))."""
    return max(1, math.floor(keep_ratio * width + 1e-6))  # 1e-6: 0.29 * 100 is 28.999999999999996


def keep_top_k(scores: Tensor, k: int, fill: float) -> Tensor:
    """M(P, k) of eq. (5): each row keeps what reaches its k-th largest score; the rest becomes ``fill``.

    Args:
        scores: P, ``(B, h, d, d)``, any range.
        k: ``1 <= k <= d``. Ties at the threshold are all kept.
        fill: 0 is the paper to the letter; -inf leaves the others out of a softmax.
    """
    threshold = scores.topk(k, dim=-1).values[..., -1:]
    return scores.masked_fill(scores < threshold, fill)


@register(ARCH_REGISTRY)
class DDSA(nn.Module):
    """Dynamic dual self-attention (section 2.2), (B, C, H, W) -> (B, C, H, W).

    Attention between the channels of a head: the scores of a head are a d x d matrix, whatever the image size.

        P = Q K^T / sqrt(d)                                             (4)
        M(P, k): entries of P below the k-th largest of their row fall   (5)
        out = [w_0 softmax(P) + w_1 softmax(M(P, k))] V                 (6)

    The weighted sum of the two maps is formed first, as the brackets say, so both branches share one product with V.

    Args:
        dim: channels C, a multiple of ``heads``.
        heads: h.
        keep_ratio: share of a row that eq. (5) keeps, k = max(1, floor(keep_ratio * d)). The paper's "k is 0.7".
        attention: ``dual``; ``dense`` or ``sparse`` take one branch of eq. (6) alone, without a weight (Table 3).
        scale: ``temperature`` (ours, as [9] and [27]): Q and K are L2-normalised over the pixels and each head
            learns the factor, since sums over H*W pixels would grow with the image; ``sqrt_d`` is eq. (4) itself.
        mask_fill: ``exclude`` (ours, as [27]): what eq. (5) drops gets attention weight 0; ``zero`` puts the
            literal 0 of eq. (5) into the scores, where the softmax still gives it a weight.
        bias: bias in the convolutions.
    """

    def __init__(
        self,
        dim: int,
        heads: int = 1,
        keep_ratio: float = 0.7,
        attention: str = 'dual',
        scale: str = 'temperature',
        mask_fill: str = 'exclude',
        bias: bool = False,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f'dim {dim} is not a multiple of heads {heads}; try dim {math.ceil(dim / heads) * heads}')
        if not 0 < keep_ratio <= 1:
            raise ValueError(f'keep_ratio: {keep_ratio} is outside (0, 1]; the paper has 0.7')
        self.heads = heads
        self.attention = one_of('attention', attention, ('dual', 'dense', 'sparse'))
        self.k = top_k_per_row(keep_ratio, dim // heads)
        self.fill = {'exclude': -math.inf, 'zero': 0.0}[one_of('mask_fill', mask_fill, ('exclude', 'zero'))]

        self.to_qkv = nn.Conv2d(dim, dim * 3, 1, bias=bias)
        self.encode_qkv = nn.Conv2d(dim * 3, dim * 3, 3, padding=1, groups=dim * 3, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)
        one_of('scale', scale, ('temperature', 'sqrt_d'))
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1)) if scale == 'temperature' else None
        self.branch_weights = nn.Parameter(torch.full((2,), 0.5)) if attention == 'dual' else None

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.encode_qkv(self.to_qkv(x)).chunk(3, dim=1)
        q, k, v = (split_heads(part, self.heads) for part in (q, k, v))  # (B, h, d, N)
        p = channel_scores(q, k, self.temperature)  # (4), (B, h, d, d)
        out = self.attention_map(p) @ v  # (6)
        return self.project_out(merge_heads(out, x.shape))

    def attention_map(self, p: Tensor) -> Tensor:
        """The bracket of eq. (6), (B, h, d, d) from the scores P of that shape."""
        if self.attention == 'dense':
            return p.softmax(dim=-1)
        m = keep_top_k(p, self.k, self.fill)  # (5)
        if self.branch_weights is None:  # sparse
            return m.softmax(dim=-1)
        return self.branch_weights[0] * p.softmax(dim=-1) + self.branch_weights[1] * m.softmax(dim=-1)


@register(ARCH_REGISTRY)
class SEFN(nn.Module):
    """Spatial-enhanced feed-forward network (section 2.3), (B, C, H, W) -> (B, C, H, W).

    Res2Net with scale 3 and depth-wise 3x3 convolutions between two 1x1 convolutions, then the spatial attention
    (SA) of CBAM:

        x1, x2, x3 = split(GELU(conv1x1(x)))
        y1 = x1;  y2 = DW(x2);  y3 = DW(x3 + y2)
        out = conv1x1(SA([y1, y2, y3]))

    Args:
        dim: channels C.
        expansion: hidden width over ``dim``; the nearest multiple of 24 is taken (our choice; 2.66 as [9]).
        spatial_attention: False leaves SA out: the MSFN of Table 3.
        bias: bias in the convolutions.
    """

    def __init__(self, dim: int, expansion: float = 2.66, spatial_attention: bool = True, bias: bool = False) -> None:
        super().__init__()
        hidden = hidden_width(dim, expansion)
        part = hidden // RES2NET_SCALE
        self.expand = nn.Conv2d(dim, hidden, 1, bias=bias)
        self.depthwise2 = nn.Conv2d(part, part, 3, padding=1, groups=part, bias=bias)
        self.depthwise3 = nn.Conv2d(part, part, 3, padding=1, groups=part, bias=bias)
        self.spatial_attention = SpatialAttention(bias) if spatial_attention else nn.Identity()
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x1, x2, x3 = F.gelu(self.expand(x)).chunk(RES2NET_SCALE, dim=1)  # (B, hidden / 3, H, W) each
        y2 = self.depthwise2(x2)
        y3 = self.depthwise3(x3 + y2)
        y = torch.cat([x1, y2, y3], dim=1)
        return self.project_out(self.spatial_attention(y))


class AblationGDFN(nn.Module):
    """Gated feed-forward network of [9], with the SA of SEFN where row (e) of Table 3 asks for it.

    conv1x1(SA(GELU(a) * b)) with a, b = split(DW(conv1x1(x))), (B, C, H, W) -> (B, C, H, W). The hidden width is
    that of SEFN, so that the ablation changes the kind of network alone.
    """

    def __init__(self, dim: int, expansion: float = 2.66, spatial_attention: bool = False, bias: bool = False) -> None:
        super().__init__()
        hidden = hidden_width(dim, expansion)
        self.expand = nn.Conv2d(dim, hidden * 2, 1, bias=bias)
        self.depthwise = nn.Conv2d(hidden * 2, hidden * 2, 3, padding=1, groups=hidden * 2, bias=bias)
        self.activation = nn.GELU()
        self.spatial_attention = SpatialAttention(bias) if spatial_attention else nn.Identity()
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.depthwise(self.expand(x)).chunk(2, dim=1)  # (B, hidden, H, W) each
        return self.project_out(self.spatial_attention(self.activation(a) * b))


def hidden_width(dim: int, expansion: float) -> int:
    """Hidden channels of a feed-forward network: the multiple of 24 nearest to ``expansion * dim``, at least 24."""
    return max(WIDTH_MULTIPLE, round(expansion * dim / WIDTH_MULTIPLE) * WIDTH_MULTIPLE)


def unseen_arguments(
    keep_ratio: float, attention: str, scale: str, mask_fill: str, heads: Sequence[int]
) -> dict[str, Any]:
    """Return those arguments of a DDSANet that neither names nor shapes of its weights tell.

    Empty for the paper's network, whose state dict so has its parameters alone.
    """
    seen = keep_ratio == KEEP_RATIO and attention == 'dual' and scale == 'temperature' and mask_fill == 'exclude'
    told = {'keep_ratio': keep_ratio, 'attention': attention, 'mask_fill': mask_fill, 'heads': [int(h) for h in heads]}
    return {} if seen else told


class DATB(nn.Module):
    """Dual attention Transformer block (section 2.1), (B, C, H, W) -> (B, C, H, W).

    X' = X + DDSA(LN(X))    (1)
    X  = X' + SEFN(LN(X'))  (2)
    """

    def __init__(self, dim: int, attention: nn.Module, feed_forward: nn.Module, norm_bias: bool = True) -> None:
        super().__init__()
        self.norm1 = ChannelLayerNorm(dim, norm_bias)
        self.attention = attention
        self.norm2 = ChannelLayerNorm(dim, norm_bias)
        self.feed_forward = feed_forward

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))  # (1)
        return x + self.feed_forward(self.norm2(x))  # (2)


@register(ARCH_REGISTRY)
class DDSANet(nn.Module):
    """The deraining Transformer of Fig. 2: I_derain = I_rain + I_res, the network predicts I_res.

    Five levels: 0 and 1 at full resolution with ``dim`` channels, 2, 3, 4 at 1/2, 1/4, 1/8 with 2, 4, 8 x dim, so
    that every head of the encoder is ``dim`` channels wide. The decoder mirrors levels 3, 2, 1, 0; at full
    resolution it works on 2 x dim channels (the concatenated skip, without a 1x1 convolution, as [9]).

    Stated by the paper: blocks, heads, keep_ratio, dual attention, Res2Net scale 3, SA, residual output.
    Decided by us where it is silent: dim (as [9]), the resolutions, ``scale`` and ``mask_fill`` (see DDSA),
    ``expansion``, ``norm_bias`` and ``bias``, PyTorch's own initialisation.

    Args:
        in_channels: of the image, and of the output.
        dim: channels at full resolution.
        blocks: N_0 .. N_4, blocks per level.
        heads: attention heads per level.
        keep_ratio: see DDSA.
        attention: ``dual``, ``dense`` or ``sparse``, see DDSA.
        scale: ``temperature`` or ``sqrt_d``, see DDSA.
        mask_fill: ``exclude`` or ``zero``, see DDSA.
        ffn: ``msfn`` (SEFN, or the paper's MSFN without ``spatial_attention``) or ``gdfn`` (that of [9]).
        spatial_attention: SA inside the feed-forward network.
        expansion: hidden width of the feed-forward network over its input's.
        norm_bias: LayerNorm with bias; False as [9]'s bias-free form.
        bias: bias in the convolutions.

    Attributes:
        unseen_arguments: in networks other than the paper's alone, a buffer with the JSON of the arguments that nobody
            could tell from the weights, such as ``keep_ratio``; tools that get nothing but a state dict read it.

    Shape: (B, in_channels, H, W) in [0, 1] -> the same; H and W multiples of 8; not clamped.
    """

    size_multiple = 8
    block_types = (DATB,)  # whose activations `train.checkpoint_blocks` computes anew in the backward pass
    compiled_types = (DATB,)  # which `train.compile` compiles, each for itself

    def __init__(
        self,
        in_channels: int = 3,
        dim: int = 48,
        blocks: Sequence[int] = (2, 4, 6, 6, 8),
        heads: Sequence[int] = HEADS,
        keep_ratio: float = KEEP_RATIO,
        attention: str = 'dual',
        scale: str = 'temperature',
        mask_fill: str = 'exclude',
        ffn: str = 'msfn',
        spatial_attention: bool = True,
        expansion: float = 2.66,
        norm_bias: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (('blocks', blocks), ('heads', heads)):
            if len(value) != 5:
                raise ValueError(f'{name}: {list(value)} has {len(value)} entries; one for each of the levels 0 to 4')
        if dim % 2:
            raise ValueError(f'dim: {dim} is odd, and the levels halve it; try {dim + 1}')
        make_attention = partial(
            DDSA, keep_ratio=keep_ratio, attention=attention, scale=scale, mask_fill=mask_fill, bias=bias
        )
        make_ffn = partial(
            {'msfn': SEFN, 'gdfn': AblationGDFN}[one_of('ffn', ffn, ('msfn', 'gdfn'))],
            expansion=expansion, spatial_attention=spatial_attention, bias=bias,
        )  # fmt: skip

        def level(index: int, channels: int) -> nn.Sequential:
            return nn.Sequential(*(
                DATB(channels, make_attention(channels, heads[index]), make_ffn(channels), norm_bias)
                for _ in range(blocks[index])
            ))  # fmt: skip

        self.embed = nn.Conv2d(in_channels, dim, 3, padding=1, bias=bias)
        self.encoder0 = level(0, dim)
        self.encoder1 = level(1, dim)
        self.down12 = Downsample(dim, bias)
        self.encoder2 = level(2, dim * 2)
        self.down23 = Downsample(dim * 2, bias)
        self.encoder3 = level(3, dim * 4)
        self.down34 = Downsample(dim * 4, bias)
        self.level4 = level(4, dim * 8)
        self.up43 = Upsample(dim * 8, bias)
        self.fuse3 = nn.Conv2d(dim * 8, dim * 4, 1, bias=bias)
        self.decoder3 = level(3, dim * 4)
        self.up32 = Upsample(dim * 4, bias)
        self.fuse2 = nn.Conv2d(dim * 4, dim * 2, 1, bias=bias)
        self.decoder2 = level(2, dim * 2)
        self.up21 = Upsample(dim * 2, bias)
        self.decoder1 = level(1, dim * 2)
        self.decoder0 = level(0, dim * 2)
        self.output = nn.Conv2d(dim * 2, in_channels, 3, padding=1, bias=bias)
        unseen = unseen_arguments(keep_ratio, attention, scale, mask_fill, heads)
        if unseen:
            self.register_buffer(UNSEEN, as_tensor(unseen))

    def forward(self, rain: Tensor) -> Tensor:
        x1 = self.encoder1(self.encoder0(self.embed(rain)))  # (B, dim, H, W)
        x2 = self.encoder2(self.down12(x1))  # (B, 2 dim, H/2, W/2)
        x3 = self.encoder3(self.down23(x2))  # (B, 4 dim, H/4, W/4)
        y = self.level4(self.down34(x3))  # (B, 8 dim, H/8, W/8)
        y = self.decoder3(self.fuse3(torch.cat([self.up43(y), x3], dim=1)))
        y = self.decoder2(self.fuse2(torch.cat([self.up32(y), x2], dim=1)))
        y = self.decoder0(self.decoder1(torch.cat([self.up21(y), x1], dim=1)))  # (B, 2 dim, H, W)
        return rain + self.output(y)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """Take weights from before there was a buffer of unseen arguments too."""
        unseen = self._buffers.get(UNSEEN)
        if unseen is not None:
            state_dict.setdefault(f'{prefix}{UNSEEN}', unseen)
        super()._load_from_state_dict(state_dict, prefix, *others)
