"""Transformer blocks in inference: strip by strip, written into their input's own memory.

Shapes: (B, C, H, W); in strips B = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddsa_arch.archs import ddsanet_arch
from ddsa_arch.archs.blocks import transposed_attention
from ddsa_arch.archs.blocks.norm import ChannelLayerNorm
from ddsa_arch.fast import attention as fast_attention
from ddsa_arch.fast.attention import (
    ScoreSum,
    SelfAttention,
    attention_weights,
    encode,
    fold_projection,
    self_attention_obstacle,
)
from ddsa_arch.fast.convolutions import conv_add_
from ddsa_arch.fast.eligible import in_inference, is_touched, obstacle
from ddsa_arch.fast.feedforward import FORMS, LOOK_HALO, FeedForward, Form, finish, spatial_weights
from ddsa_arch.fast.memory_format import layout
from ddsa_arch.fast.strips import StripPlan, plan_of, strips

Block = ddsanet_arch.DATB | transposed_attention.TransformerBlock


class DATB(ddsanet_arch.DATB):
    """Fast execution of DATB."""

    def forward(self, x: Tensor) -> Tensor:
        return run_block(self, x, plan_of(self)) if in_inference(x) else ddsanet_arch.DATB.forward(self, x)


class TransformerBlock(transposed_attention.TransformerBlock):
    """Fast execution of Restormer's block."""

    def forward(self, x: Tensor) -> Tensor:
        if in_inference(x):
            return run_block(self, x, plan_of(self))
        return transposed_attention.TransformerBlock.forward(self, x)


SELF_ATTENTIONS = (fast_attention.DDSA, fast_attention.MDTA, fast_attention.TKSA)
BLOCKS = (DATB, TransformerBlock)


def branches(block: Block) -> tuple[nn.Module, nn.Module]:
    """Return the attention and the feed-forward network of a block."""
    if isinstance(block, ddsanet_arch.DATB):
        return block.attention, block.feed_forward
    return block.attn, block.ffn


def run_block(block: Block, x: Tensor, plan: StripPlan) -> Tensor:
    """Run one block, (B, C, H, W) -> the same, and leave x as it is."""
    return update(x.clone(memory_format=layout(x)), block, plan)


def run_blocks(blocks: nn.Sequential, x: Tensor, plan: StripPlan) -> Tensor:
    """Run blocks one after the other, (B, C, H, W) -> the same, written into x unless that has another layout."""
    if obstacle(blocks, nn.Sequential):
        return x.copy_(blocks(x))
    for block in blocks:
        if isinstance(block, BLOCKS) and not obstacle(block, *BLOCKS):
            x = update(x, block, plan)
        else:
            x.copy_(block(x))
    return x


def update(x: Tensor, block: Block, plan: StripPlan) -> Tensor:
    """x' = x + attention(norm1(x)); x' + ffn(norm2(x')), written into x, unless that has another layout.

    A branch that is not what the fast form knows runs by itself, on the whole image.
    """
    if layout(x) is torch.channels_last and x.stride(1) != 1:
        x = x.contiguous(memory_format=torch.channels_last)
    attention, feed_forward = branches(block)
    if _is_known_attention(attention) and not norm_obstacle(block.norm1):
        for image in x.split(1):
            _attend(image, normaliser(block.norm1), attention, plan)
    else:
        x += attention(block.norm1(x))
    # looked up once: another thread may give the network back its own classes meanwhile
    form = _form_of(feed_forward)
    if form is not None and not norm_obstacle(block.norm2):
        for image in x.split(1):
            _feed(image, normaliser(block.norm2), feed_forward, form, plan)
    else:
        x += feed_forward(block.norm2(x))
    return x


def _is_known_attention(module: nn.Module) -> TypeGuard[SelfAttention]:
    return (
        isinstance(module, SELF_ATTENTIONS)
        and not obstacle(module, *SELF_ATTENTIONS)
        and not self_attention_obstacle(module)
    )


def _form_of(module: nn.Module) -> Form[Any] | None:
    form = FORMS.get(type(module))
    return None if form is None or form.obstacle(module) else form


def norm_obstacle(norm: nn.Module) -> str | None:
    """Return why a norm is not a ChannelLayerNorm as built, alone or in a Sequential; None if it is."""
    if type(norm) is nn.Sequential and len(norm) == 1 and not is_touched(norm):
        norm = norm[0]
    return obstacle(norm, ChannelLayerNorm, name='the norm')


def normaliser(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the function that normalises as the norm of a block does, (B, C, H, W) -> the same."""
    layer = norm[0] if isinstance(norm, nn.Sequential) else norm
    assert isinstance(layer, ChannelLayerNorm)  # as norm_obstacle found
    return partial(_normalise, layer)


def _normalise(norm: ChannelLayerNorm, x: Tensor) -> Tensor:
    if norm.bias is None or x.dtype != torch.bfloat16 or x.device.type != 'cpu':
        return norm(x)
    # a kernel from bfloat16 to bfloat16 with float32 inside, which rounds once, as the convolution behind it would
    with torch.autocast('cpu', enabled=False):
        pixels = F.layer_norm(x.permute(0, 2, 3, 1), norm.weight.shape, norm.weight, norm.bias, norm.eps)
    return pixels.permute(0, 3, 1, 2)


def _attend(x: Tensor, norm: Callable[[Tensor], Tensor], attention: SelfAttention, plan: StripPlan) -> None:
    """Compute x += attention(norm(x)) in two passes over the image: for the scores, and for the values."""
    halo = fast_attention.HALO
    scores = ScoreSum(attention.heads, attention.temperature)
    keep = x.numel() * x.element_size() <= plan.kept
    kept: list[tuple[slice, Tensor]] = []  # values, and of which rows
    for strip in strips(x, halo, plan, norm):
        q, k, *v = (strip.crop(part) for part in encode(attention, strip.x, ('q', 'k', 'v') if keep else ('q', 'k')))
        scores.add(q, k)
        kept += [(strip.rows, part) for part in v]
    matrix = fold_projection(attention_weights(attention, scores.scores()), attention.project_out)  # (1, O, C)
    weight, bias = matrix[0, :, :, None, None], attention.project_out.bias
    again = ((strip.rows, strip.crop(*encode(attention, strip.x, 'v'))) for strip in strips(x, halo, plan, norm))
    for rows, values in kept if keep else again:
        conv_add_(x[:, :, rows], values, weight.to(values.dtype), bias)


def _feed(  # Any: a module of the form
    x: Tensor, norm: Callable[[Tensor], Tensor], feed_forward: Any, form: Form[Any], plan: StripPlan
) -> None:
    """Compute x += feed_forward(norm(x)). A spatial attention sees rows beyond a strip: it waits for the next."""
    pooled: Tensor | None = None
    waiting: tuple[slice, Tensor] | None = None
    for strip in strips(x, form.halo, plan, norm):
        p, looked_at = form.strip(feed_forward, strip.x, strip.crop, strip.of(x))
        if looked_at is None:
            continue
        if pooled is None:
            pooled = looked_at.new_empty(1, looked_at.shape[1], *x.shape[2:])
        strip.of(pooled).copy_(looked_at)
        if waiting:
            _weigh(x, *waiting, pooled, feed_forward)
        waiting = strip.rows, p
    if waiting and pooled is not None:
        _weigh(x, *waiting, pooled, feed_forward)


def _weigh(x: Tensor, rows: slice, p: Tensor, pooled: Tensor, feed_forward: FeedForward) -> None:
    """Add rows whose spatial attention had to wait for the rows around them."""
    start = max(0, rows.start - LOOK_HALO)
    weights = spatial_weights(feed_forward, pooled[:, :, start : rows.stop + LOOK_HALO])
    finish(feed_forward, p, weights[:, :, rows.start - start : rows.stop - start], x[:, :, rows])
