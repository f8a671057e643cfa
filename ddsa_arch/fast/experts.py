"""The mixture of experts of DRSformer: the last 1x1 convolution of each expert joins the one that mixes them.

Shapes: (B, C, H, W); in strips B = 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddsa_arch.archs import drsformer_arch
from ddsa_arch.archs.blocks.precision import full_precision_on_cpu
from ddsa_arch.archs.drsformer_arch import EXPERTS
from ddsa_arch.fast.convolutions import conv, conv_add_
from ddsa_arch.fast.eligible import conv_obstacle, in_inference, is_touched, obstacle, unobserved
from ddsa_arch.fast.memory_format import layout
from ddsa_arch.fast.strips import Strip, StripPlan, plan_of, strips

HALO = 6  # pixels that two 7x7 convolutions, one after the other, see around each
SEPARABLE = (1, 3, 5, 7)  # kernels of the first experts
TAKEN_APART = 7  # columns from which on a dilated kernel is taken apart


class DilatedConv(drsformer_arch.DilatedConv):
    """Fast execution of a dilated expert."""

    def forward(self, x: Tensor) -> Tensor:
        if not unobserved(x) or dilated_obstacle(self):
            return drsformer_arch.DilatedConv.forward(self, x)
        depthwise, pointwise = convolutions(self)
        return pointwise(dilated(depthwise, x))


class ExpertStep(drsformer_arch.ExpertStep):
    """Fast execution of a step."""

    def forward(self, s: Tensor, weights: Tensor) -> Tensor:
        if not unobserved(s) or step_obstacle(self):
            return drsformer_arch.ExpertStep.forward(self, s, weights)
        if torch.is_grad_enabled():
            return mixed_by_weights(self, s, weights)
        return update(self, s.clone(memory_format=layout(s)), weights, plan_of(self))


class ExpertSteps(drsformer_arch.ExpertSteps):
    """Fast execution of the steps, in the memory of their first features."""

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        if not in_inference(x) or obstacle(self._ops, nn.ModuleList) or is_touched(self):
            return drsformer_arch.ExpertSteps.forward(self, x, weights)
        s = self.preprocess(x)
        for i, step in enumerate(self._ops):
            if type(step) is ExpertStep and not step_obstacle(step):
                s = update(step, s, weights[:, i], plan_of(self))
            else:
                s = step(s, weights[:, i])
        return s


def step_obstacle(step: drsformer_arch.ExpertStep) -> str | None:
    """Return why the fast form cannot stand in for a step; None if it can."""
    if is_touched(step) or is_touched(step._ops) or is_touched(step._out):
        return 'it has hooks or methods of its own'
    if type(step._out) is not nn.Sequential or len(step._out) != 1 or len(step._ops) != EXPERTS:
        return 'its experts were changed'
    for place, expert in enumerate(step._ops):
        if why := _expert_obstacle(expert, place):
            return why
    return conv_obstacle(step._out[0], '_out', 1)


def _expert_obstacle(expert: nn.Module, place: int) -> str | None:
    name = f'expert {place + 1}'
    if place == EXPERTS - 1:
        return obstacle(expert, nn.AvgPool2d, name=name)
    if place >= len(SEPARABLE):
        return obstacle(expert, DilatedConv, drsformer_arch.DilatedConv, name=name) or dilated_obstacle(expert)
    op = getattr(expert, 'op', None)
    if obstacle(expert, nn.Sequential, name=name) or op is None or obstacle(op, nn.Sequential) or len(op) != 5:
        return f'{name} was changed'
    kernel = SEPARABLE[place]
    return (
        conv_obstacle(op[0], name, kernel, groups=None)
        or conv_obstacle(op[1], name, 1)
        or obstacle(op[2], nn.ReLU, name=name)
        or conv_obstacle(op[3], name, kernel, groups=None)
        or conv_obstacle(op[4], name, 1)
    )


def dilated_obstacle(expert: nn.Module) -> str | None:
    op = getattr(expert, 'op', None)
    if is_touched(expert) or op is None or obstacle(op, nn.Sequential) or len(op) != 2:
        return 'a dilated expert was changed'
    kernel = getattr(op[0], 'kernel_size', (0,))[0]
    return conv_obstacle(op[0], 'a dilated expert', kernel, groups=None, dilation=2) or conv_obstacle(
        op[1], 'a dilated expert', 1
    )


def convolutions(expert: nn.Module) -> list[nn.Conv2d]:
    """The convolutions of an expert, in their order."""
    return [layer for layer in expert.modules() if isinstance(layer, nn.Conv2d)]


def mixing_conv(step: drsformer_arch.ExpertStep) -> nn.Conv2d:
    """The 1x1 convolution that joins the experts of a step."""
    (conv,) = convolutions(step._out)
    return conv


def dilated(depthwise: nn.Conv2d, x: Tensor) -> Tensor:
    """Run a depth-wise convolution of dilation 2, whose gradient needs float32 on a CPU (see the paper's form).

    On a CPU oneDNN has no fast code for dilated kernels that reach over more than 9 columns: there the inner columns
    make a kernel of their own, and the outer ones are kernels of one column, whose results are moved.
    """
    with torch.autocast('cpu', enabled=False):
        x = full_precision_on_cpu(x)
        if depthwise.kernel_size[1] < TAKEN_APART or x.device.type != 'cpu' or depthwise.bias is not None:
            return depthwise(x)
        weight, groups = depthwise.weight, depthwise.groups
        dilation, reach = depthwise.dilation[1], depthwise.dilation[1] * (depthwise.kernel_size[1] // 2)
        out = F.conv2d(x, weight[..., 1:-1], None, 1, (reach, reach - dilation), dilation, groups)
        inside = x.shape[-1] - reach  # columns that have a neighbour at that distance
        if inside > 0:
            left, right = (
                F.conv2d(x, weight[..., column], None, 1, (reach, 0), dilation, groups)
                for column in (slice(0, 1), slice(-1, None))
            )
            out[..., reach:] += left[..., :inside]
            out[..., :inside] += right[..., reach:]
        return out


def mixed_by_weights(step: drsformer_arch.ExpertStep, s: Tensor, weights: Tensor) -> Tensor:
    """Run a whole step; the weights scale the 1x1 convolution of their sample, (C, 8C), instead of the features."""
    channels, height, width = s.shape[1:]
    x = torch.cat([op(s) for op in step._ops], dim=1)  # (B, 8C, H, W)
    last = mixing_conv(step)
    mix = last.weight.view(channels, EXPERTS, channels) * weights[:, None, :, None]  # (B, C, 8, C)
    y = x.permute(0, 2, 3, 1).flatten(1, 2) @ mix.flatten(2).transpose(1, 2)  # (B, N, C)
    if last.bias is not None:
        y = y + last.bias
    y = y.unflatten(1, (height, width)).permute(0, 3, 1, 2)
    return F.relu(F.relu(y) + s)


def update(step: drsformer_arch.ExpertStep, s: Tensor, weights: Tensor, plan: StripPlan) -> Tensor:
    """Run a step and write its result into s."""
    for image, image_weights in zip(s.split(1), weights, strict=True):
        for strip in strips(image, HALO, plan, torch.clone):
            strip.of(image).copy_(_in_strip(step, strip, image_weights))
    return s


def _in_strip(step: drsformer_arch.ExpertStep, strip: Strip, weights: Tensor) -> Tensor:
    """Run a step within a strip, and return it without its halo, for the weights (8,) of its image."""
    s, channels, last = strip.x, strip.x.shape[1], mixing_conv(step)
    mix = last.weight.view(channels, EXPERTS, channels) * weights[:, None]  # (C, 8, C)
    total: Tensor | None = None
    for number, expert in enumerate(step._ops):
        y, matrix = s, mix[:, number]  # (C, C)
        bias = last.bias if number == 0 else None
        if number == EXPERTS - 1:
            y = expert(y)
        else:
            *before, depthwise, pointwise = convolutions(expert)
            if before:
                first, then = before
                y = conv(first(y), then.weight, then.bias, activation='relu')
            y = depthwise(y) if depthwise.dilation == (1, 1) else dilated(depthwise, y)
            if pointwise.bias is not None:
                bias = matrix @ pointwise.bias + (0 if bias is None else bias)
            matrix = matrix @ pointwise.weight.flatten(1)
        total = conv_add_(total, strip.crop(y), matrix[:, :, None, None], bias)
    assert total is not None  # as there are experts
    return total.relu_().add_(strip.crop(s)).relu_()
