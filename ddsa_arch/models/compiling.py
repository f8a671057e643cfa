"""Networks compiled by torch.compile for training."""

from __future__ import annotations

import torch
from torch import nn

VARIANTS = 64  # of one kind of block: widths times sizes of patches; beyond, torch.compile goes on uncompiled


def compile_for_training(net: nn.Module) -> None:
    """Compile a network in place; the names of its weights stay.

    Args:
        net: one that names ``compiled_types`` has its blocks of these kinds compiled, for each size that they meet:
            blocks of one width share what is compiled, which takes a seventh of the time for the whole network.
            Another is compiled as a whole.
    """
    kinds = getattr(net, 'compiled_types', ())
    if not kinds:
        net.compile()
        return
    config = torch._dynamo.config
    limit = 'recompile_limit' if hasattr(config, 'recompile_limit') else 'cache_size_limit'  # before PyTorch 2.6
    setattr(config, limit, max(getattr(config, limit), VARIANTS))
    for module in net.modules():
        if isinstance(module, kinds):
            module.compile(dynamic=False)  # sizes of patches are few, and PyTorch 2.13 fails on batches of any size


def compile_for_inference(net: nn.Module) -> None:
    """Let torch.compile compile a network as a whole for images of any size, in place.

    Its weights stay as they are now: frozen, they are laid out for the processor's own products, which halves the time
    of bfloat16 on a CPU.
    """
    net.compile(options={'freezing': True})
