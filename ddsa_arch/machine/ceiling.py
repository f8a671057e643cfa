"""The rates that a machine reaches by itself, to which the speed of a network is compared."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

FIRST_SIDE, LARGEST_SIDE, LARGEST_ON_GPU = 256, 2048, 8192  # of the matrices
LONG_PRODUCT = 0.05  # seconds
COPIED = 2**27  # bytes, more than a cache holds
COPIES = 5


class Ceiling:
    """Measures the machine's own rates: of products of large matrices, and of copies.

    Args:
        device: ``cpu`` or ``cuda``.
        dtype: of the matrices.
    """

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        self.on_gpu = device == 'cuda'
        side, largest = FIRST_SIDE, LARGEST_ON_GPU if self.on_gpu else LARGEST_SIDE
        while True:  # a CPU without instructions for 16 bits would take minutes for the largest
            self.matrices = [torch.rand(side, side, device=device).to(dtype) for _ in range(3)]
            self.product_rate()
            if side == largest or self._seconds_of_product() > LONG_PRODUCT:
                break
            side *= 2

    @property
    def bytes(self) -> int:
        """Bytes that the matrices take."""
        return sum(m.numel() * m.element_size() for m in self.matrices)

    def _seconds_of_product(self) -> float:
        a, b, out = self.matrices
        return self._seconds(lambda: torch.mm(a, b, out=out))

    def product_rate(self) -> float:
        """Measure the floating-point operations per second of a matrix product, two for each multiply-add."""
        return 2 * len(self.matrices[0]) ** 3 / self._seconds_of_product()

    def copy_rate(self) -> float:
        """Measure the bytes per second of a copy, read and written."""
        source = torch.ones(COPIED // 4, device=self.matrices[0].device)
        target = source.clone()
        seconds = min(self._seconds(lambda: target.copy_(source)) for _ in range(COPIES))
        return 2 * COPIED / seconds

    def _seconds(self, work: Callable[[], object]) -> float:
        began = time.perf_counter()
        work()
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - began
