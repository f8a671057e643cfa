"""The rates of products and copies by a clock that the test sets, as machines are shared."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from ddsa_arch.machine import ceiling as module
from ddsa_arch.machine.ceiling import COPIED, FIRST_SIDE, LARGEST_SIDE, Ceiling


@pytest.mark.parametrize(('seconds', 'side'), [(0.01, LARGEST_SIDE), (0.06, FIRST_SIDE)])
def test_rates_are_counted_by_the_clock_and_a_slow_machine_gets_small_matrices(seconds, side, monkeypatch):
    monkeypatch.setattr(module, 'time', SimpleNamespace(perf_counter=itertools.count(0, seconds).__next__))
    ceiling = Ceiling('cpu', torch.float32)
    assert ceiling.bytes == 3 * 4 * side**2
    assert ceiling.product_rate() == pytest.approx(2 * side**3 / seconds)
    assert ceiling.copy_rate() == pytest.approx(2 * COPIED / seconds)  # each byte is read once and written once
