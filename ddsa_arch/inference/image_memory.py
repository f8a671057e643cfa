"""The memory that an image takes in a network, estimated from small ones, and the memory that is free."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch
from torch import nn

from ddsa_arch.archs.building import sharing_tensors
from ddsa_arch.fast import accelerate, is_accelerated
from ddsa_arch.fast.strips import STRIP_PIXELS, StripPlan
from ddsa_arch.files.decoded_size import available_memory
from ddsa_arch.machine.memory import PeakMemory, give_back_freed_memory
from ddsa_arch.models.restore import restore

SIDES = (192, 320)  # of the images that are tried
TRIED_STRIP = 2**13  # pixels of a strip in them, so that they have several
SAFETY = 1.25  # a process that has run for long has holes in its memory
OUT_OF_MEMORY = ("can't allocate memory", 'out of memory', 'not enough memory')


@dataclass(frozen=True)
class ImageMemory:
    """A linear estimate of the bytes for an image of p pixels: ``fixed + per_pixel * p``.

    Args:
        fixed: for a strip, and whatever else does not grow with the image.
        per_pixel: for each pixel.
    """

    fixed: float
    per_pixel: float

    def largest_image(self, budget: float) -> float:
        """Return the pixels of the largest image within a budget of bytes."""
        return max(0.0, budget - self.fixed) / max(self.per_pixel, 1.0)

    @staticmethod
    def measure(net: nn.Module, device: torch.device) -> ImageMemory:
        """Run two small images, and take the line through the bytes that they need.

        Where the system does not tell a process's peak, a network is taken to need a kilobyte for each pixel and for
        each million of its weights, more or less what the larger ones of the package need.
        """
        strip = 1.0
        if is_accelerated(net):
            net = sharing_tensors(net)  # as the strips of the network itself may be at work
            accelerate(net, StripPlan(TRIED_STRIP))
            strip = STRIP_PIXELS.get(device.type, TRIED_STRIP) / TRIED_STRIP
        first, second = (_peak(net, device, side) for side in SIDES)
        if first is None or second is None:
            return ImageMemory(0, 1024 * (1 + sum(p.numel() for p in net.parameters()) / 2**20))
        small, large = (side * side for side in SIDES)
        per_pixel = max(0.0, second - first) / (large - small)
        fixed = max(0.0, first - per_pixel * small)
        return ImageMemory(fixed * strip * SAFETY, per_pixel * SAFETY)


def _peak(net: nn.Module, device: torch.device, side: int) -> int | None:
    """Return the bytes by which an image lifts the memory in use."""
    rain = torch.zeros(1, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
    restore(net, rain[..., :64, :64])  # what is made once
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        restore(net, rain)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != 'cpu':
        return None
    give_back_freed_memory()
    memory = PeakMemory()
    if memory.source != 'VmHWM':
        return None
    resident = memory.now()
    restore(net, rain)
    peak = memory.peak()
    return None if resident is None or peak is None else peak - resident


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that are free, within the limit of a container; None where the system does not tell."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    if device.type == 'mps':  # shares the memory of the CPU
        return min(psutil.virtual_memory().available, torch.mps.recommended_max_memory())
    if device.type != 'cpu':
        return None
    give_back_freed_memory()
    return int(available_memory())


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of torch or Python says that memory was not enough."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY)
