"""How large a network is and what an image costs, counted without computing anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

WEIGHED = {'convolution', 'addmm', 'mm'}  # products with weights; bmm and what is like it multiply features


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


# torch's counter knows the fused attention of GPUs alone
FUSED_ON_CPU = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


@dataclass(frozen=True)
class Complexity:
    """Size and cost of a network.

    Args:
        parameters: each shared tensor once.
        weighed_macs: multiply-adds of convolutions and linear layers, what most papers print.
        feature_macs: multiply-adds of products between features, such as those of attention.
        outputs: images that the network gives, the final one last.
    """

    parameters: int
    weighed_macs: int
    feature_macs: int
    outputs: int

    @property
    def macs(self) -> int:
        """All multiply-adds; norms, activations, pooling and resizing are left out, as torch's counter does."""
        return self.weighed_macs + self.feature_macs


def complexity(net: nn.Module, height: int = 256, width: int = 256) -> Complexity:
    """Count a network for one image, from shapes alone: milliseconds, and no memory for features.

    A network that takes one size alone (``fixed_size``) is counted for as many tiles as the image holds.

    Args:
        net: on the CPU; its mode is kept.
        height: of the image, a multiple of what the network needs.
        width: of the image.
    """
    fixed = getattr(net, 'fixed_size', None)
    size, tiles = ((fixed, fixed), -(-height // fixed) * -(-width // fixed)) if fixed else ((height, width), 1)
    training = net.training
    counter = FlopCounterMode(display=False, custom_mapping=FUSED_ON_CPU)
    with FakeTensorMode(allow_non_fake_inputs=True), counter, torch.no_grad():
        outputs = net.eval()(torch.zeros(1, 3, *size))
    net.train(training)
    counts = {
        str(kind).rpartition('.')[2]: flops // 2 * tiles for kind, flops in counter.get_flop_counts()['Global'].items()
    }
    weighed = sum(macs for kind, macs in counts.items() if kind in WEIGHED)
    return Complexity(
        sum(p.numel() for p in net.parameters()),
        weighed,
        sum(counts.values()) - weighed,
        1 if isinstance(outputs, Tensor) else len(outputs),
    )
