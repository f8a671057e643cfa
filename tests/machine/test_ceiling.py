import time

import torch

from ddsa_arch.machine.ceiling import Ceiling


def test_the_rate_of_products_is_that_of_a_product_timed_by_hand():
    ceiling = Ceiling('cpu', torch.float32)
    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - began)
    by_hand = 2 * 1024**3 / sorted(seconds)[2]
    assert by_hand / 5 < ceiling.product_rate() < by_hand * 5  # machines are shared
    assert ceiling.bytes == 3 * 4 * len(ceiling.matrices[0]) ** 2


def test_copies_are_counted_once_read_and_once_written():
    source = torch.ones(2**25)
    target = source.clone()
    began = time.perf_counter()
    target.copy_(source)
    by_hand = 2 * 2**27 / (time.perf_counter() - began)
    assert by_hand / 10 < Ceiling('cpu', torch.float32).copy_rate() < by_hand * 10
