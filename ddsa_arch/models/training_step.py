"""One step of the optimiser: mixed precision, accumulated gradients, clipping, a guard against broken numbers."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from ddsa_arch.errors import InputError
from ddsa_arch.models.restore import final_output
from ddsa_arch.ops.seeds import sample_rng

PRECISIONS = {'bf16': torch.bfloat16, 'fp16': torch.float16}
LARGEST_SEED = 2**63

Losses = OrderedDict[str, Tensor]


def check_training_size(key: str, net: nn.Module, height: int, width: int, multiple: int) -> None:
    """Check that a network takes images of a size as they are: training pads nothing.

    Args:
        key: that gave the size.
        net: the network.
        height: in pixels.
        width: in pixels.
        multiple: of H and W, which the network needs; counts where it has no ``fixed_size``.

    Raises:
        InputError: it does not.
    """
    fixed = getattr(net, 'fixed_size', None)
    up = (fixed, fixed) if fixed else tuple(side + -side % multiple for side in (height, width))
    if (height, width) == up:
        return
    given, wanted = (str(size[0]) if size[0] == size[1] else 'x'.join(map(str, size)) for size in ((height, width), up))
    name = type(net).__name__
    raise InputError(
        f'{key}: {given} is not {fixed}, the only size that {name} takes; try {wanted}'
        if fixed
        else f'{key}: {given} is not a multiple of {multiple}, which {name} needs; try {wanted}'
    )


def checkpoint_blocks(net: nn.Module) -> None:
    """Let the blocks of a network compute their activations anew in the backward pass.

    Args:
        net: names its kinds of block in ``block_types``; its parameters keep their names.

    Raises:
        InputError: it names none.
    """
    kinds = getattr(net, 'block_types', ())
    if not kinds:
        raise InputError(f'train.checkpoint_blocks: {type(net).__name__} names no block_types; set it to false')
    for module in net.modules():
        if isinstance(module, kinds):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)


@dataclass
class StepResult:
    """The result of a step.

    Attributes:
        output: ``(B, 3, H, W)``, the final image of the last part of the batch, detached.
        losses: mean over the batch, detached.
        taken: False when the weights were left as they were, because a loss or the gradient was not finite.
    """

    output: Tensor
    losses: Losses
    taken: bool


class TrainingStep:
    """Takes steps with one network and one optimiser.

    The batch is divided in ``accumulate`` equal parts, whose gradients add up to that of the whole batch. In several
    processes all agree whether a step is taken.

    Args:
        net: as it is called in training, wrapped for several processes or not.
        optimiser: of its parameters.
        options: ``amp``, ``accumulate`` and ``grad_clip`` of the section ``train``.
        device: where the network lies.
        seed: of what the network itself draws, such as dropout.
        rank: of this process.
    """

    def __init__(
        self,
        net: nn.Module,
        optimiser: torch.optim.Optimizer,
        options: dict[str, Any],
        device: torch.device,
        seed: int = 0,
        rank: int = 0,
    ) -> None:
        self.net, self.optimiser, self.device = net, optimiser, device
        self.seed, self.rank = seed, rank
        self.parts = options.get('accumulate') or 1
        self.grad_clip = options.get('grad_clip')
        self.dtype = PRECISIONS.get(options.get('amp') or 'off')
        if self.dtype and isinstance(net, DataParallel):
            raise InputError('train.amp: not with several GPUs in one process; start one process each with torchrun')
        self.scaler = torch.amp.GradScaler(device.type) if self.dtype is torch.float16 else None
        bare = net.module if isinstance(net, DistributedDataParallel | DataParallel) else net
        self.parameters = [p for p in bare.parameters() if p.requires_grad]
        self.statistics = list(bare.buffers())  # such as those of batch norm

    def run(self, iteration: int, rain: Tensor, target: Tensor, losses: Callable[[Any, Tensor], Losses]) -> StepResult:
        """Take a step, unless a number is not finite.

        Args:
            iteration: counted from 1; with the seed it determines what the network draws.
            rain: ``(B, 3, H, W)`` in [0, 1], B a multiple of ``accumulate``.
            target: the same shape.
            losses: of the network's outputs (float32) and the target, each a mean over the batch.
        """
        torch.manual_seed(int(sample_rng(self.seed, iteration, self.rank).integers(LARGEST_SEED)))
        before = [buffer.clone() for buffer in self.statistics]
        self.optimiser.zero_grad()
        total: Losses = OrderedDict()
        batches = list(zip(rain.chunk(self.parts), target.chunk(self.parts), strict=True))
        for number, (part, part_target) in enumerate(batches, 1):
            share = len(part) / len(rain)
            with self._synchronised(number == len(batches)):
                with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
                    outputs = self.net(part)
                outputs = _in_full_precision(outputs)
                part_losses = losses(outputs, part_target)
                first, *others = part_losses.values()
                loss = sum(others, first) * share
                (self.scaler.scale(loss) if self.scaler else loss).backward()
            for name, value in part_losses.items():
                total[name] = total.get(name, 0.0) + value.detach() * share
        taken = self._update(total)
        if not taken:
            for buffer, earlier in zip(self.statistics, before, strict=True):
                buffer.copy_(earlier)
        return StepResult(final_output(outputs).detach(), total, taken)

    def _synchronised(self, last: bool) -> contextlib.AbstractContextManager:
        """Let processes exchange gradients once for a step, with its last part."""
        return (
            contextlib.nullcontext()
            if last or not isinstance(self.net, DistributedDataParallel)
            else (self.net.no_sync())
        )

    def _update(self, losses: Losses) -> bool:
        if self.scaler:
            self.scaler.unscale_(self.optimiser)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        finite = torch.isfinite(norm) & torch.isfinite(torch.stack(list(losses.values())).sum())
        taken = self._agreed(finite)
        if taken and self.grad_clip:
            nn.utils.clip_grad_norm_(self.parameters, self.grad_clip)
        if self.scaler:
            if taken:
                self.scaler.step(self.optimiser)
                self.scaler.update()
            else:  # the scale was too large, or a number was broken before scaling
                self.scaler.update(self.scaler.get_scale() * self.scaler.get_backoff_factor())
        elif taken:
            self.optimiser.step()
        return taken

    def _agreed(self, finite: Tensor) -> bool:
        """Tell whether the numbers of all processes are finite."""
        if isinstance(self.net, DistributedDataParallel):
            finite = finite.to(torch.int32)
            torch.distributed.all_reduce(finite, torch.distributed.ReduceOp.MIN)
        return bool(finite)


def _in_full_precision(outputs: Any) -> Any:
    """Turn images of 16 bits into float32, for the loss."""
    if isinstance(outputs, Tensor):
        return outputs.float() if outputs.dtype in PRECISIONS.values() else outputs
    return [_in_full_precision(output) for output in outputs]
