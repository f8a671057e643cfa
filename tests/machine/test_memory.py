import mmap

import numpy as np
import pytest

from ddsa_arch.machine.memory import PeakMemory

MIB = 2**20


@pytest.fixture
def memory():
    memory = PeakMemory()
    if memory.source != 'VmHWM':
        pytest.skip('the peak cannot be set back on this system')
    return memory


def test_an_array_that_is_gone_is_in_the_peak_until_it_is_reset(memory):
    memory.reset()
    start = memory.now()
    pages = mmap.mmap(-1, 64 * MIB)  # fresh ones, whatever freed memory the process has kept
    np.frombuffer(pages, np.uint8)[:] = 1
    pages.close()
    assert 63 * MIB < memory.peak() - start < 68 * MIB
    assert memory.reset()
    assert memory.peak() - start < 8 * MIB


def test_the_peak_is_never_below_what_is_in_use_now():
    memory = PeakMemory()
    if not memory.source:
        assert memory.peak() is None
        return
    array = np.ones(16 * MIB, np.uint8)
    assert memory.peak() >= memory.now() * 0.99 > array.nbytes
