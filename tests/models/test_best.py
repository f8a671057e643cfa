"""One number over several validation sets: what it is, when it is the best, and when a training ends."""

import math

import pytest
import torch

from ddsa_arch.errors import InputError
from ddsa_arch.models.best import BestWeights
from ddsa_arch.runners.train import train

METRICS = {'psnr': {'type': 'derain_psnr', 'better': 'higher'}, 'niqe': {'type': 'derain_niqe', 'better': 'lower'}}


def follow(best, scores):
    """Add the scores of two sets for each iteration; return the means."""
    return [
        [best.add(name, {best.metric: score}, iteration) for name, score in zip('ab', pair, strict=True)][-1]
        for iteration, pair in enumerate(scores, 1)
    ]


def test_the_mean_of_all_sets_counts_when_the_last_of_them_is_scored():
    best = BestWeights({}, METRICS, ['a', 'b'])
    assert best.add('a', {'psnr': 30.0}, 5) is None
    assert best.add('b', {'psnr': 20.0}, 5) == 25.0
    assert (best.value, best.iteration, best.waited) == (25.0, 5, 0)


def test_weights_tell_how_much_a_set_counts():
    best = BestWeights({'weights': {'a': 3, 'b': 1}}, METRICS, ['a', 'b', 'c'])
    assert follow(best, [(30.0, 20.0)]) == [27.5]
    only = BestWeights({'weights': {'a': 1, 'b': 0}}, METRICS, ['a', 'b'])
    assert only.add('a', {'psnr': 30.0}, 1) == 30.0


def test_patience_counts_validations_without_a_better_mean():
    best = BestWeights({'patience': 2}, METRICS, ['a', 'b'])
    follow(best, [(30, 30), (29, 29), (31, 31), (31, 31)])
    assert (best.value, best.iteration, best.waited, best.is_over) == (31, 3, 1, False)
    resumed = BestWeights({'patience': 2}, METRICS, ['a', 'b'])
    resumed.load_state(best.state())
    for name in 'ab':
        resumed.add(name, {'psnr': 30.0}, 5)
    assert resumed.is_over


def test_lower_is_better_where_the_metric_says_so():
    best = BestWeights({'metric': 'niqe'}, METRICS, ['a', 'b'])
    follow(best, [(4, 4), (3, 3), (5, 5)])
    assert (best.value, best.iteration) == (3, 2)


def test_a_mean_that_is_no_number_is_never_the_best():
    best = BestWeights({}, METRICS, ['a', 'b'])
    follow(best, [(math.nan, 30), (20, 20), (math.nan, 40)])
    assert (best.value, best.iteration) == (20, 2)


@pytest.mark.parametrize(
    ('options', 'sets', 'message'),
    [
        ({'metric': 'psrn'}, ['a'], "val.best.metric: 'psrn' is no metric of val.metrics; did you mean 'psnr'"),
        ({'weights': {'Rain100': 1}}, ['Rain100L'], 'val.best.weights.Rain100: no validation set of this name'),
        ({'weights': {'a': -1}}, ['a'], 'val.best.weights.a: -1, wanted a number from 0 up'),
        ({'weights': {'a': 'much'}}, ['a'], "val.best.weights.a: 'much', wanted a number"),
        ({'weights': {'a': 0}}, ['a'], 'all weights are 0'),
        ({}, [], 'no validation set'),
    ],
)
def test_what_cannot_be_followed_is_named(options, sets, message):
    with pytest.raises(InputError) as error:
        BestWeights(options, METRICS, sets)
    assert message in str(error.value)


def test_a_training_keeps_its_best_weights_and_ends_when_nothing_gets_better(write_options):
    changes = {'train:total_iter': 40, 'val:val_freq': 2, 'train:optim_g:lr': 0.5, 'train:scheduler': None}
    changes |= {'val:best': {'patience': 3}, 'train:ema_decay': 0.0, 'logger:save_checkpoint_freq': 2}
    folder = train(write_options('train', **changes))
    log = '\n'.join(path.read_text(encoding='utf-8') for path in folder.glob('train_*.log'))
    assert 'No better mean in 3 validations: the training ends (val.best.patience)' in log
    rows = (folder / 'validation' / 'summary.csv').read_text().splitlines()
    scores = {int(row.split(',')[1]): float(row.split(',')[3]) for row in rows[1:]}
    best = max(scores, key=scores.get)
    assert max(scores) == best + 6 < 40
    kept, there = (torch.load(folder / 'models' / f'net_g_{i}.pth', weights_only=True) for i in ('best', best))
    assert all(torch.equal(kept['params'][name], value) for name, value in there['params'].items())
    resumed = train(write_options('train', **changes), auto_resume=True)
    assert not (resumed / 'models' / f'net_g_{max(scores) + 2}.pth').exists()
