import pytest
import torch
from torch import nn

from ddsa_arch.inference import image_memory
from ddsa_arch.inference.image_memory import ImageMemory, free_memory, is_out_of_memory
from ddsa_arch.machine.memory import PeakMemory


class Wide(nn.Module):
    """Holds 200 float32 numbers for each pixel."""

    def forward(self, rain):
        wide = rain.repeat_interleave(67, 1)[:, :200].contiguous()
        return wide[:, :3] * 1.0


@pytest.mark.skipif(PeakMemory().source != 'VmHWM', reason='the system does not tell the peak of a process')
def test_what_an_image_takes_is_measured():
    measured = ImageMemory.measure(Wide(), torch.device('cpu'))
    least = 200 * 4
    assert least <= measured.per_pixel <= 5 * least
    assert measured.fixed <= 60e6


def test_where_nothing_is_told_the_size_of_a_network_is_the_measure(monkeypatch):
    monkeypatch.setattr(image_memory, '_peak', lambda *a: None)
    assert ImageMemory.measure(nn.Conv2d(3, 3, 1), torch.device('cpu')).per_pixel == pytest.approx(1024, rel=0.01)


def test_the_largest_image_within_a_budget():
    assert ImageMemory(fixed=100, per_pixel=2).largest_image(300) == 100
    assert ImageMemory(fixed=100, per_pixel=2).largest_image(50) == 0


def test_memory_is_free_here():
    assert 2**20 < free_memory(torch.device('cpu')) < 2**50
    assert free_memory(torch.device('meta')) is None


def test_out_of_memory_is_told_from_other_errors():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError('MPS backend out of memory'))
    assert not is_out_of_memory(RuntimeError('shape mismatch'))
    assert not is_out_of_memory(ValueError('out of memory'))
