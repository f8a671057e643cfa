import math

import pytest
import torch

from ddsa_arch.errors import InputError
from ddsa_arch.models.optimisation import build_optimiser, build_schedulers


def optimiser(name='AdamW', **options):
    return build_optimiser(name, [torch.nn.Parameter(torch.zeros(1))], **({'lr': 1e-4} | options))


def rates(schedule, iterations, **options):
    """The learning rate of each 1-based iteration, as BasicSR's pipeline steps the schedules."""
    optim = optimiser()
    built = build_schedulers(optim, schedule)
    seen = []
    for iteration in range(1, iterations + 1):
        optim.step()
        if iteration > 1:
            for scheduler in built:
                scheduler.step()
        seen.append(optim.param_groups[0]['lr'])
    return seen


def test_the_papers_schedule_is_constant_then_half_a_cosine():
    """The closed form, at a thousandth of the paper's 300,000 iterations."""
    begin, end, high, low = 92, 300, 1e-4, 1e-6
    seen = rates({'type': 'CosineAnnealingLR', 'begin': begin, 'end': end, 'T_max': end - begin, 'eta_min': low}, end)
    for iteration, rate in enumerate(seen, 1):
        n = max(0, iteration - 1 - begin)
        assert rate == pytest.approx(low + (high - low) / 2 * (1 + math.cos(math.pi * n / (end - begin))), rel=1e-9)


def test_several_schedules_follow_each_other():
    seen = rates([
        {'type': 'LinearLR', 'start_factor': 0.1, 'begin': 0, 'end': 5},
        {'type': 'MultiStepLR', 'milestones': [8], 'gamma': 0.5},
    ], 12)  # fmt: skip
    assert seen[0] == pytest.approx(1e-5)
    assert seen[6] == pytest.approx(1e-4)
    assert seen[-1] == pytest.approx(5e-5)


@pytest.mark.parametrize('name', ['AdamW', 'Adam', 'SGD', 'RMSprop'])
def test_any_optimiser_of_torch_is_built_by_its_name(name):
    assert isinstance(optimiser(name), getattr(torch.optim, name))


def test_an_unknown_optimiser_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"no optimiser 'AdamWW' in torch.optim; did you mean 'AdamW'"):
        optimiser('AdamWW')


def test_an_option_that_the_optimiser_does_not_take_is_named():
    with pytest.raises(InputError, match=r'train\.optim_g: AdamW .*momentum'):
        optimiser(momentum=0.9)


def test_an_unknown_schedule_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="'CosineAnealingLR'; did you mean 'CosineAnnealingLR'"):
        build_schedulers(optimiser(), {'type': 'CosineAnealingLR'})


def test_a_schedule_that_ends_before_it_begins_is_refused():
    with pytest.raises(InputError, match=r'train\.scheduler: CosineAnnealingLR .*begin=10, end=5'):
        build_schedulers(optimiser(), {'type': 'CosineAnnealingLR', 'begin': 10, 'end': 5, 'T_max': 5})
