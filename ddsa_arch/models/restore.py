"""Run a restoration network on images of any size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ddsa_arch.ops.padding import crop_to, pad_to_multiple


def final_output(outputs: Tensor | Sequence[Tensor]) -> Tensor:
    """The final image of a network that may give several: by contract the last one."""
    return outputs if isinstance(outputs, Tensor) else outputs[-1]


@torch.inference_mode()
def restore(net: nn.Module, rain: Tensor) -> Tensor:
    """The derained image, not clamped. The one place where images are padded for a network.

    Args:
        net: takes H and W that are multiples of its ``size_multiple`` (1 if it has none). Its mode is kept.
        rain: ``(B, 3, H, W)`` in [0, 1], H and W from 1 up.
    """
    training = net.training
    net.eval()
    try:
        padded = pad_to_multiple(rain, getattr(net, 'size_multiple', 1))
        return crop_to(final_output(net(padded)), *rain.shape[-2:])
    finally:
        net.train(training)
