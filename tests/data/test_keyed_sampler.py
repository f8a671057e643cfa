import itertools
from collections import Counter

import pytest
from torch.utils.data import DataLoader

from ddsa_arch.data.keyed_sampler import KeyedSampler


def codes(epoch=0, **options):
    sampler = KeyedSampler(**options)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert len(sampler) == len(drawn)
    return drawn


def order(length, **options):
    return [code % length for code in codes(length=length, **options)]


@pytest.mark.parametrize('length', [1, 2, 7, 50])
@pytest.mark.parametrize('epoch', [0, 1, 9])
def test_epoch_has_every_index_once(length, epoch):
    assert sorted(order(length, epoch=epoch)) == list(range(length))


def test_ratio_repeats_every_index():
    assert Counter(order(7, ratio=3)) == dict.fromkeys(range(7), 3)


@pytest.mark.parametrize(('length', 'ranks', 'ratio'), [(12, 2, 1), (12, 3, 2), (7, 2, 1), (7, 4, 3), (1, 4, 1)])
def test_ranks_share_an_epoch(length, ranks, ratio):
    parts = [codes(length=length, num_replicas=ranks, rank=rank, ratio=ratio, epoch=2) for rank in range(ranks)]
    assert len({len(part) for part in parts}) == 1
    counts = Counter(code % length for part in parts for code in part)
    total = -(-length * ratio // ranks) * ranks  # rounded up, so that all ranks take the same number of steps
    assert set(counts) == set(range(length))
    assert sum(counts.values()) == total
    assert max(counts.values()) - min(counts.values()) <= -(-(total - length * ratio) // length)
    alone = codes(length=length, ratio=ratio, epoch=2)
    if total == length * ratio:  # the ranks take turns in the order of a single process
        assert [code for step in zip(*parts, strict=True) for code in step] == alone


@pytest.mark.parametrize('ranks', [1, 2, 3])
def test_places_count_the_samples_of_the_run(ranks):
    drawn = [
        codes(length=5, num_replicas=ranks, rank=rank, ratio=2, epoch=epoch)
        for epoch, rank in itertools.product(range(4), range(ranks))
    ]
    places = sorted(code // 5 for part in drawn for code in part)
    assert places == list(range(1, len(places) + 1))


def test_order_is_reproducible_and_changes_with_epoch_and_seed():
    orders = {(seed, epoch): tuple(order(50, seed=seed, epoch=epoch)) for seed in range(5) for epoch in range(5)}
    assert len(set(orders.values())) == 25
    assert all(
        tuple(order(50, seed=seed, epoch=epoch)) == expected for (seed, epoch), expected in orders.items()
    )  # fmt: skip


def test_order_is_no_rotation_of_the_sorted_one():
    first = order(100)
    neighbours = sum(b == (a + 1) % 100 for a, b in itertools.pairwise(first))
    assert neighbours < 10  # 1 expected of a random order


def test_large_seed_of_the_options_works():
    assert sorted(order(5, seed=2**32 - 1, epoch=10**6)) == list(range(5))


def test_loader_passes_the_codes_on():
    class Codes:
        def __len__(self):
            return 6

        def __getitem__(self, code):
            return code

    sampler = KeyedSampler(6, seed=3)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        batches = list(DataLoader(Codes(), batch_size=2, sampler=sampler))
        assert [code for batch in batches for code in batch.tolist()] == codes(length=6, seed=3, epoch=epoch)
