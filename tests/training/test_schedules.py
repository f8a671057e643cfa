"""How schedules of the learning rate fit each other and the run."""

import pytest

from ddsa_arch.errors import InputError
from ddsa_arch.training.schedules import check_schedules, schedule_doubts


def train(*schedules, total=100, **others):
    """A section ``train``."""
    scheduler = list(schedules) if len(schedules) != 1 else schedules[0]
    return {'total_iter': total, 'optim_g': {'type': 'Adam', 'lr': 1e-2}, 'scheduler': scheduler, **others}


def cosine(begin, end, **others):
    return {'type': 'CosineAnnealingLR', 'begin': begin, 'end': end, 'T_max': end - begin, **others}


RISE = {'type': 'LinearLR', 'begin': 0, 'end': 20}


@pytest.mark.parametrize(
    'options',
    [
        train(),
        train(cosine(0, 100)),
        train(RISE, cosine(20, 100)),
        train(RISE, {'type': 'MultiStepLR', 'milestones': [50, 80], 'gamma': 0.5}),
        train({'type': 'MultiStepRestartLR', 'milestones': [50, 80], 'gamma': 0.5}),
        train({'type': 'ExponentialLR', 'gamma': 0.99}),
        train({'type': 'StepLR', 'step_size': 30}),
        train({'type': 'CosineAnnealingRestartLR', 'periods': [60, 40], 'restart_weights': [1, 0.5]}),
        train({'type': 'ConstantLR', 'factor': 0.5, 'end': 10}, cosine(10, 100)),
        train(cosine(0, 100), warmup_iter=10),
    ],
)
def test_usual_schedules_leave_no_doubt(options):
    check_schedules(options)
    assert schedule_doubts(options) == []


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (
            train(cosine(150, 250)),
            'train.scheduler: it begins at 150, behind the end of the run (train.total_iter: 100)',
        ),
        (train(cosine(0, 400)), 'CosineAnnealingLR goes on until 400, and the run ends at 100 (train.total_iter)'),
        (train({'type': 'LinearLR', 'begin': 5}), 'train.scheduler: LinearLR goes on without an end, and the run ends'),
        (train(cosine(0, 90, T_max=95)), 'CosineAnnealingLR goes on until 95, and its end is 90'),
        (
            train({'type': 'CosineAnnealingLR', 'T_max': 40}),
            'behind step 40 (begin + T_max) the learning rate rises again',
        ),
        (
            train(RISE, cosine(10, 100)),
            'train.scheduler[0] and train.scheduler[1]: both change the learning rate from step',
        ),
        (train(RISE, cosine(30, 100)), 'from step 20 to 30 neither changes the learning rate'),
        (train(warmup_iter=200), 'train.warmup_iter: 200 is longer than the run, train.total_iter: 100'),
    ],
)
def test_what_hardly_anybody_wants_is_told(options, words):
    check_schedules(options)
    (doubt,) = schedule_doubts(options)
    assert words in doubt


@pytest.mark.parametrize(
    ('schedule', 'words'),
    [
        (cosine(0, 100, eta_min=0.5), 'eta_min: 0.5 is above train.optim_g.lr: 0.01'),
        (
            {'type': 'CosineAnnealingRestartLR', 'periods': [30, 30], 'restart_weights': [1, 1]},
            'sum up to 60, and the run',
        ),
        ({'type': 'CosineRestartLR', 'periods': [50], 'restart_weights': [1], 'begin': 20}, 'goes on for 80 steps'),
        (
            {'type': 'OneCycleLR', 'eta_max': 0.1, 'total_steps': 99},
            'total_steps: 99, and the run goes on for 100 steps',
        ),
    ],
)
def test_what_cannot_work_is_refused(schedule, words):
    with pytest.raises(InputError) as error:
        check_schedules(train(schedule))
    assert words in str(error.value)
    assert str(error.value).startswith('train.scheduler.')
