"""The progress of a network with an image, told by how much has been computed so far."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ddsa_arch.fast import is_accelerated
from ddsa_arch.fast.progress import listening
from ddsa_arch.models.restore import restore

TRIED_SIDE = 128  # pixels of the image that shows how much the layers give; every network of the package takes it
STEP = 0.005  # of an image, between two reports


class ImageProgress:
    """Measures how much the layers of a network compute for a pixel, and reports how far they are with an image.

    They give in proportion to the pixels, whether they see an image whole, in strips or in tiles; so a small image
    shows how much they will give for a large one.

    Args:
        net: of any kind; one without layers of its own tells each time that it was called.
        device: where it is.
    """

    def __init__(self, net: nn.Module, device: torch.device) -> None:
        self.net = net
        given = 0

        def count(elements: int) -> None:
            nonlocal given
            given += elements

        with _counting(net, count):
            restore(net, torch.zeros(1, 3, TRIED_SIDE, TRIED_SIDE, device=device))
        self.per_pixel = given / TRIED_SIDE**2

    @contextlib.contextmanager
    def reporting(self, pixels: int, report: Callable[[float], None]) -> Iterator[None]:
        """Report while the network runs within the block.

        Args:
            pixels: that it will see in all; those where tiles overlap count twice.
            report: gets the part that is done, rising, and 1 at the end of the block.
        """
        given, told = 0, 0.0

        def count(elements: int) -> None:
            nonlocal given, told
            given += elements
            done = given / (self.per_pixel * pixels)
            if told + STEP <= done < 1:  # beyond 1 where an image is computed again, in smaller tiles or in float32
                told = done
                report(done)

        with _counting(self.net, count):
            yield
        report(1.0)


@contextlib.contextmanager
def _counting(net: nn.Module, count: Callable[[int], None]) -> Iterator[None]:
    """Report the elements that a network computes in this thread within the block.

    Fast execution tells of its strips by itself; layers that are looked at by hooks would not run fast.
    """
    if is_accelerated(net):
        with listening(count):
            yield
        return
    thread = threading.get_ident()

    def given(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if isinstance(output, Tensor) and threading.get_ident() == thread:
            count(output.numel())

    layers = [module for module in net.modules() if next(module.children(), None) is None]
    handles = [layer.register_forward_hook(given) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
