"""Several sets in one training: shares, order, and independence of workers and processes."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ddsa_arch.data.keyed_sampler import KeyedSampler
from ddsa_arch.data.mixture_dataset import CYCLE, MixtureDataset
from ddsa_arch.errors import InputError

WEIGHTS = {'heavy': 0.5, 'light': 0.3, 'rendered': 0.2}


def options(pairs, weights=WEIGHTS, **more):
    roots = {'dataroot_lq': str(pairs / 'input'), 'dataroot_gt': str(pairs / 'target')}
    sets = {name: {'type': 'PairedRainDataset', 'weight': weight, **roots} for name, weight in weights.items()}
    if 'rendered' in sets:
        sets['rendered'] = {
            'type': 'RenderedRainDataset',
            'weight': weights['rendered'],
            'dataroot_gt': roots['dataroot_gt'],
        }
    return {'name': 'mixture', 'type': 'MixtureDataset', 'phase': 'train', 'gt_size': 16, 'sets': sets, **more}


def drawn(mixture, places):
    return [mixture.drawn(place) for place in places]


def test_each_stretch_of_a_run_has_the_shares(pairs):
    mixture = MixtureDataset(options(pairs))
    assert mixture.shares == pytest.approx(WEIGHTS)
    assert len(mixture) == 30
    numbers = np.array([number for number, _ in drawn(mixture, range(1, 2 * CYCLE + 1))])
    for number, share in enumerate(WEIGHTS.values()):
        assert (numbers == number).mean() == share
        seen = np.cumsum(numbers == number)
        assert np.abs(seen - share * np.arange(1, len(seen) + 1)).max() <= 1


@pytest.mark.parametrize('weights', [{'a': 1.0, 'b': 1.0, 'c': 1.0}, {'a': 3.0, 'b': 1.0}, {'a': 0.001, 'b': 0.999}])
def test_weights_need_not_sum_to_one(pairs, weights):
    mixture = MixtureDataset(options(pairs, weights))
    total = sum(weights.values())
    assert mixture.shares == pytest.approx({name: weight / total for name, weight in weights.items()}, abs=1 / CYCLE)


def test_every_image_of_a_set_is_seen_before_any_comes_again(pairs):
    mixture = MixtureDataset(options(pairs))
    for number in range(3):
        images = [image for of, image in drawn(mixture, range(1, 1001)) if of == number]
        passes = list(itertools.batched(images, 10)) if hasattr(itertools, 'batched') else [
            tuple(images[i : i + 10]) for i in range(0, len(images), 10)
        ]  # fmt: skip
        assert all(sorted(one) == list(range(10)) for one in passes if len(one) == 10)
        assert len(set(passes[:5])) == 5


def test_an_item_is_that_of_its_set_with_its_name(pairs):
    mixture = MixtureDataset(options(pairs))
    number, image = mixture.drawn(7)
    name = mixture.names[number]
    item, own = mixture[7 * len(mixture)], mixture.sets[name].item(7, image)
    assert item['set'] == name
    assert torch.equal(item['lq'], own['lq'])
    assert item['gt_path'] == own['gt_path']
    assert {mixture[i]['set'] for i in (0, 9)} == {'heavy'}
    assert {mixture[i]['set'] for i in (20, 29)} == {'rendered'}


def test_what_the_mixture_says_holds_for_sets_that_do_not_say_it(pairs):
    given = options(pairs, {'plain': 1.0, 'still': 1.0}, use_hflip=False)
    given['sets']['still']['use_hflip'] = True
    mixture = MixtureDataset(given)
    assert {name: part.opt['use_hflip'] for name, part in mixture.sets.items()} == {'plain': False, 'still': True}
    given['sets']['plain']['gt_size'] = 24
    with pytest.raises(InputError, match=r"patches of unequal sizes, gt_size .'plain': 24, 'still': 16"):
        MixtureDataset(given)


@pytest.mark.parametrize('workers', [1, 2])
def test_items_do_not_depend_on_workers_or_where_a_run_began(pairs, workers):
    def items(workers, skipped=0):
        mixture = MixtureDataset(options(pairs, seed=5))
        sampler = KeyedSampler(len(mixture), seed=3)
        sampler.resume(0, skipped)
        loader = DataLoader(mixture, batch_size=2, sampler=sampler, num_workers=workers)
        return [(batch['set'], batch['lq_path'], batch['lq']) for batch in loader]

    whole = items(0)
    for one, other in zip(whole[4:], items(workers, 8), strict=True):
        assert one[:2] == other[:2]
        assert torch.equal(one[2], other[2])
    assert Counter(itertools.chain.from_iterable(names for names, _, _ in whole)) == {
        'heavy': 15,
        'light': 9,
        'rendered': 6,
    }


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'sets': {}}, 'a MixtureDataset takes its images from sets'),
        ({'phase': 'val'}, 'datasets.val.type: a MixtureDataset is for training'),
        (
            {'sets': {'a': {'dataroot_gt': 'nowhere', 'type': 'RenderedRainDataset'}}},
            'datasets.train.sets.a: .*nowhere',
        ),
    ],
)
def test_what_cannot_be_mixed_is_refused(pairs, change, message):
    with pytest.raises(InputError, match=message):
        MixtureDataset(options(pairs) | change)


def test_sets_of_unequal_kinds_are_refused(pairs):
    given = options(pairs, {'pairs': 1.0, 'semi': 1.0})
    given['sets']['semi'] |= {'type': 'SemiRainDataset', 'dataroot_real': str(pairs / 'input')}
    with pytest.raises(InputError, match='items of unequal kinds'):
        MixtureDataset(given)


def test_weights_too_small_or_not_above_zero_are_refused(pairs):
    with pytest.raises(InputError, match='wanted numbers above 0'):
        MixtureDataset(options(pairs, {'a': 0.0, 'b': 1.0}))
    with pytest.raises(InputError, match=r'the smallest is below 0\.0001 of their sum'):
        MixtureDataset(options(pairs, {'a': 1e-6, 'b': 1.0}))
