"""The feed-forward networks of the family, with fewer passes over their features, whole or in strips.

Each has a ``Form``: what it computes inside a strip, with channels brought to widths that suit the hardware, and some
channels at a time so that they stay in a cache. A spatial attention is a factor that all channels of a pixel share; it
goes through the last 1x1 convolution, so it is multiplied in behind it, where the channels are fewer; the bias comes
last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any, Generic, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddsa_arch.archs import ddsanet_arch, drsformer_arch
from ddsa_arch.archs.blocks import gated_feedforward
from ddsa_arch.archs.blocks.attention import SpatialAttention
from ddsa_arch.archs.blocks.precision import full_precision
from ddsa_arch.archs.ddsanet_arch import RES2NET_SCALE
from ddsa_arch.fast.convolutions import ALIGNMENT, aligned, channel_groups, conv, conv_add_, conv_times
from ddsa_arch.fast.eligible import conv_obstacle, is_touched, obstacle, unobserved, unwrapped
from ddsa_arch.fast.memory_format import layout

GROUP_NUMBERS = 2**23  # of a strip's features that go through a gated network at a time, so that they stay in a cache
LOOK_HALO = 3  # pixels that a spatial attention sees around each

Crop = Callable[[Tensor], Tensor]  # cuts a strip without its halo out of the strip with it


class SEFN(ddsanet_arch.SEFN):
    """Fast execution of SEFN."""

    def forward(self, x: Tensor) -> Tensor:
        return run(self, x, FORMS[SEFN]) if runs_fast(self, x, FORMS[SEFN]) else ddsanet_arch.SEFN.forward(self, x)


class AblationGDFN(ddsanet_arch.AblationGDFN):
    """Fast execution of the GDFN of DDSANet's ablation."""

    def forward(self, x: Tensor) -> Tensor:
        form = FORMS[AblationGDFN]
        return run(self, x, form) if runs_fast(self, x, form) else ddsanet_arch.AblationGDFN.forward(self, x)


class GDFN(gated_feedforward.GDFN):
    """Fast execution of Restormer's GDFN."""

    def forward(self, x: Tensor) -> Tensor:
        form = FORMS[GDFN]
        return run(self, x, form) if runs_fast(self, x, form) else gated_feedforward.GDFN.forward(self, x)


class MSFN(drsformer_arch.MSFN):
    """Fast execution of MSFN."""

    def forward(self, x: Tensor) -> Tensor:
        return run(self, x, FORMS[MSFN]) if runs_fast(self, x, FORMS[MSFN]) else drsformer_arch.MSFN.forward(self, x)


FeedForward = ddsanet_arch.SEFN | ddsanet_arch.AblationGDFN | gated_feedforward.GDFN | drsformer_arch.MSFN
Kind = TypeVar('Kind', bound=FeedForward)


@dataclass(frozen=True)
class Form(Generic[Kind]):
    """The fast form of one kind of feed-forward network.

    Args:
        halo: rows that its convolutions see beyond each side of a strip, without its spatial attention.
        strip: from the module, a strip (B, C, h, w), what cuts off its halo, and what is to be added to, in place
            (None for 0), to the sum and None; with a spatial attention, to what ``finish`` needs of the strip and what
            the attention looks at, (B, 2, h, w).
        obstacle: why it cannot run, None if it can.
    """

    halo: int
    strip: Callable[[Kind, Tensor, Crop, Tensor | None], tuple[Tensor, Tensor | None]]
    obstacle: Callable[[Kind], str | None]


def runs_fast(module: Kind, x: Tensor, form: Form[Kind]) -> bool:
    """Whether the fast form may run now."""
    return unobserved(x) and not form.obstacle(module)


def run(module: Kind, x: Tensor, form: Form[Kind]) -> Tensor:
    """Run the whole module, (B, C, H, W) -> the same."""
    p, looked_at = form.strip(module, x, lambda whole: whole, None)
    return p if looked_at is None else finish(module, p, spatial_weights(module, looked_at), None)


def looks(module: nn.Module) -> bool:
    """Tell whether a module has a spatial attention."""
    return isinstance(getattr(module, 'spatial_attention', None), SpatialAttention)


def spatial_weights(module: nn.Module, pooled: Tensor) -> Tensor:
    """The factor of each pixel from the mean and the maximum of its channels, (B, 2, H, W) -> (B, 1, H, W)."""
    return module.get_submodule('spatial_attention.conv')(pooled).sigmoid()


def finish(module: FeedForward, p: Tensor, weights: Tensor, out: Tensor | None) -> Tensor:
    """Add what a module with a spatial attention gives to out, in place; None stands for an out of 0.

    Args:
        module: of one of the kinds above.
        p: the first that ``Form.strip`` gives.
        weights: the factor of each pixel, ``(B, 1, h, w)``.
        out: (B, C, h, w).
    """
    out = add_weighed(out, p, weights)
    bias = module.project_out.bias
    return out if bias is None else out.add_(bias[:, None, None])


class ChannelPool:
    """Mean and maximum over the channels of each pixel, which may come in parts, (B, C_i, H, W) each."""

    def __init__(self) -> None:
        self.sums: list[Tensor] = []
        self.largest: list[Tensor] = []
        self.channels = 0

    def add(self, part: Tensor) -> None:
        """Count in some more channels of each pixel."""
        pixels = part.permute(0, 2, 3, 1)  # (B, H, W, C): reductions over the last axis, forward and backward
        if part.device.type == 'cpu' and not torch.is_grad_enabled():
            pixels = full_precision(pixels)  # the maximum of bfloat16 takes four times as long
        self.sums.append(pixels.sum(dim=-1))
        self.largest.append(pixels.amax(dim=-1))  # makes no indices, so that it takes a quarter of the time of max
        self.channels += part.shape[1]

    def result(self) -> Tensor:
        """Return mean and maximum over all channels so far, (B, 2, H, W)."""
        return torch.stack(
            [sum(self.sums[1:], self.sums[0]) / self.channels, reduce(torch.maximum, self.largest)], dim=1
        )


def add_weighed(out: Tensor | None, x: Tensor, weights: Tensor) -> Tensor:
    """Add x times a factor for each pixel, (B, 1, H, W), to out, in place; None stands for an out of 0."""
    x, weights = (tensor.permute(0, 2, 3, 1) for tensor in (x, weights))
    if out is None:
        return (x * weights).permute(0, 3, 1, 2)
    out.permute(0, 2, 3, 1).addcmul_(x, weights)
    return out


# --- SEFN ----------------------------------------------------------------------------------------------------


def _sefn_obstacle(module: ddsanet_arch.SEFN) -> str | None:
    return (
        _touched(module)
        or conv_obstacle(module.expand, 'expand', 1)
        or conv_obstacle(module.depthwise2, 'depthwise2', 3, groups=None)
        or conv_obstacle(module.depthwise3, 'depthwise3', 3, groups=None)
        or conv_obstacle(module.project_out, 'project_out', 1)
        or _look_obstacle(module)
    )


def _sefn_strip(module: ddsanet_arch.SEFN, x: Tensor, crop: Crop, out: Tensor | None) -> tuple[Tensor, Tensor | None]:
    pool = ChannelPool()
    look = looks(module)
    p, bias = (None, None) if look else (out, module.project_out.bias)
    last = module.project_out.weight
    # with gradients one tensor, as those of parts would have to be summed up
    parts = [_sefn_hidden(module, x)] if torch.is_grad_enabled() else _sefn_parts(module, x)
    weights = [last] if torch.is_grad_enabled() else last.chunk(RES2NET_SCALE, dim=1)
    for y, weight in zip(parts, weights, strict=True):
        y = crop(y)
        p, bias = conv_add_(p, y, weight, bias), None
        if look:
            pool.add(y)
    assert p is not None  # as there are parts
    return p, pool.result() if look else None


def _sefn_parts(module: ddsanet_arch.SEFN, x: Tensor) -> Iterator[Tensor]:
    """Yield y1, y2, y3 of SEFN's formula, one at a time."""
    weights, bias = module.expand.weight.chunk(RES2NET_SCALE), module.expand.bias
    biases = (None,) * RES2NET_SCALE if bias is None else bias.chunk(RES2NET_SCALE)
    expanded = (conv(x, *part, activation='gelu') for part in zip(weights, biases, strict=True))
    yield next(expanded)
    y2 = module.depthwise2(next(expanded))
    yield y2
    yield module.depthwise3(next(expanded) + y2)


def _sefn_hidden(module: ddsanet_arch.SEFN, x: Tensor) -> Tensor:
    """Return [y1, y2, y3] of SEFN's formula as one tensor, (B, hidden, H, W)."""
    x1, x2, x3 = F.gelu(module.expand(x)).chunk(RES2NET_SCALE, dim=1)
    y2 = module.depthwise2(x2)
    return torch.cat([x1, y2, module.depthwise3(x3 + y2)], dim=1)


# --- both GDFN -----------------------------------------------------------------------------------------------

Gated = ddsanet_arch.AblationGDFN | gated_feedforward.GDFN


def _gated_layers(module: Gated) -> tuple[nn.Conv2d, nn.Conv2d, nn.Module]:
    """Return the 1x1 convolution to both halves, the depth-wise one, and the activation of the gate."""
    if isinstance(module, ddsanet_arch.AblationGDFN):
        return module.expand, module.depthwise, module.activation
    return module.project_in, cast(nn.Conv2d, unwrapped(module.dwconv)), module.act1  # or what an obstacle tells of


def _gated_obstacle(module: Gated) -> str | None:
    expand, depthwise, activation = _gated_layers(module)
    why = (
        _touched(module)
        or conv_obstacle(expand, 'the 1x1 convolution', 1)
        or conv_obstacle(depthwise, 'the depth-wise convolution', 3, groups=None)
        or conv_obstacle(module.project_out, 'project_out', 1)
        or obstacle(activation, nn.GELU, nn.PReLU, name='the activation')
        or _look_obstacle(module)
    )
    if not why and isinstance(activation, nn.PReLU) and activation.num_parameters != 1:
        return 'the activation has a slope for each channel'
    return why


def _gated_strip(module: Gated, x: Tensor, crop: Crop, out: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if not looks(module):
        return _gate(module, x, crop, out, module.project_out.bias, None), None
    pool = ChannelPool()
    return _gate(module, x, crop, None, None, pool), pool.result()


def _gate(
    module: Gated, x: Tensor, crop: Crop, out: Tensor | None, bias: Tensor | None, pool: ChannelPool | None
) -> Tensor:
    """out + project_out(activation(a) * b) with a, b = split(depthwise(expand(x))) of a strip, some channels at a time.

    Args:
        module: whose layers.
        x: ``(B, C, h, w)``.
        crop: see ``Form.strip``.
        out: ``(B, O, h, w)`` of the strip without its halo, written into; None for 0.
        bias: of project_out, or None.
        pool: gets to see activation(a) * b, without the halo.
    """
    expand, depthwise, activation = _gated_layers(module)
    weight = module.project_out.weight
    hidden = weight.shape[1]
    fused = isinstance(activation, nn.GELU) and activation.approximate == 'none'

    def part(channels: slice, offset: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return, for one half, the channels before the depth-wise convolution, and its weight and bias."""
        places = slice(channels.start + offset, channels.stop + offset)
        biases = [None if m.bias is None else aligned(m.bias[places]) for m in (expand, depthwise)]
        return conv(x, aligned(expand.weight[places]), biases[0]), aligned(depthwise.weight[places]), biases[1]

    for channels in channel_groups(hidden, GROUP_NUMBERS // x.shape[2] // x.shape[3]):
        u, local, local_bias = part(channels, 0)
        groups = u.shape[1]
        if fused:
            gate = conv(u, local, local_bias, 1, groups=groups, activation='gelu')
        else:
            gate = activation(F.conv2d(u, local, local_bias, 1, 1, 1, groups))  # of 0 it must be 0
        u, local, local_bias = part(channels, hidden)
        gated = crop(conv_times(u, gate, local, local_bias, 1, groups))
        if pool:
            pool.add(gated[:, : channels.stop - channels.start])
        out = conv_add_(out, gated, aligned(weight[:, channels], dim=1), bias)
        bias = None
    assert out is not None  # as there are channels
    return out


# --- MSFN ----------------------------------------------------------------------------------------------------


def _msfn_obstacle(module: drsformer_arch.MSFN) -> str | None:
    pairs = module.dwconv3x3_1.out_channels if isinstance(module.dwconv3x3_1, nn.Conv2d) else None
    return (
        _touched(module)
        or conv_obstacle(module.project_in, 'project_in', 1)
        or conv_obstacle(module.dwconv3x3, 'dwconv3x3', 3, groups=None)
        or conv_obstacle(module.dwconv5x5, 'dwconv5x5', 5, groups=None)
        or conv_obstacle(module.dwconv3x3_1, 'dwconv3x3_1', 3, groups=pairs or 1)
        or conv_obstacle(module.dwconv5x5_1, 'dwconv5x5_1', 5, groups=pairs or 1)
        or conv_obstacle(module.project_out, 'project_out', 1)
    )


def _msfn_strip(module: drsformer_arch.MSFN, x: Tensor, crop: Crop, out: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Run MSFN in a strip, where each paired convolution is the sum of two depth-wise ones."""
    hidden, last_bias = module.dwconv3x3_1.out_channels, module.project_out.bias
    for place, paired in enumerate((module.dwconv3x3_1, module.dwconv5x5_1)):
        first, second = _msfn_pairs(module, x, slice(place * hidden, (place + 1) * hidden))
        padding, groups = paired.kernel_size[0] // 2, first.shape[1]
        bias = None if paired.bias is None else aligned(paired.bias)
        weights = [aligned(weight) for weight in paired.weight.split(1, dim=1)]
        t = conv(first, weights[0], bias, padding, groups=groups)
        t = conv_add_(t, second, weights[1], None, padding, groups, activation='relu')
        weight = aligned(module.project_out.weight[:, place * hidden : (place + 1) * hidden], dim=1)
        out, last_bias = conv_add_(out, crop(t), weight, last_bias), None
    assert out is not None  # as there are two
    return out, None


def _msfn_pairs(module: drsformer_arch.MSFN, x: Tensor, half: slice) -> tuple[Tensor, Tensor]:
    """Return the even and the odd channels of [p1, r1] or [p2, r2], with zeros up to a width that suits oneDNN."""
    hidden = half.stop - half.start
    found = []  # p and r of the even channels, p and r of the odd ones
    for parity in (0, 1):
        channels = slice(half.start + parity, half.stop, 2)
        bias = None if module.project_in.bias is None else aligned(module.project_in.bias[channels])
        u = conv(x, aligned(module.project_in.weight[channels]), bias)
        count = len(range(parity, hidden, 2))
        for layer in (module.dwconv3x3, module.dwconv5x5):
            bias = None if layer.bias is None else aligned(layer.bias[channels])
            weight, padding = aligned(layer.weight[channels]), layer.kernel_size[0] // 2
            y = conv(u, weight, bias, padding, groups=u.shape[1], activation='relu')
            found.append(y[:, :count])
    p_even, r_even, p_odd, r_odd = found
    if hidden % 2:  # the r begin at an odd place of the concatenation
        r_even, r_odd = r_odd, r_even
    return _join_aligned(p_even, r_even), _join_aligned(p_odd, r_odd)


def _join_aligned(x: Tensor, y: Tensor) -> Tensor:
    """Join x and y of (B, C_i, H, W), with channels of zeros up to a width that suits oneDNN."""
    channels = x.shape[1] + y.shape[1]
    size = (len(x), channels + -channels % ALIGNMENT, *x.shape[2:])
    joined = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=layout(x))
    joined[:, : x.shape[1]] = x
    joined[:, x.shape[1] : channels] = y
    joined[:, channels:] = 0
    return joined


def _touched(module: nn.Module) -> str | None:
    return 'it has hooks or methods of its own' if is_touched(module) else None


def _look_obstacle(module: nn.Module) -> str | None:
    """Return why a spatial attention, or the identity in its place, is not as built; None if it is."""
    attention = getattr(module, 'spatial_attention', None)
    if attention is None or (type(attention) is nn.Identity and not is_touched(attention)):
        return None
    return obstacle(attention, SpatialAttention, name='spatial_attention') or conv_obstacle(
        attention.conv, 'the convolution of spatial_attention', 2 * LOOK_HALO + 1
    )


FORMS: dict[type[nn.Module], Form[Any]] = {  # Any: each is one for modules of its key
    SEFN: Form(2, _sefn_strip, _sefn_obstacle),
    AblationGDFN: Form(1, _gated_strip, _gated_obstacle),
    GDFN: Form(1, _gated_strip, _gated_obstacle),
    MSFN: Form(4, _msfn_strip, _msfn_obstacle),  # of two 5x5 convolutions, one after the other
}
