import copy
import math

import pytest
import torch

from ddsa_arch.errors import InputError
from ddsa_arch.models.derain_model import DerainModel
from ddsa_arch.models.optimisation import beginning_of, build_optimiser, build_schedulers, changes, check_steps


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


def model_with(schedule, **options):
    """A model without a network, whose learning rates are stepped."""
    model = DerainModel.__new__(DerainModel)
    model.optimizers = [optimiser(**options)]
    model.schedulers = build_schedulers(model.optimizers[0], schedule) if schedule else []
    return model


def warmed_rates(model, iterations, warmup):
    seen = []
    for iteration in iterations:
        model.optimizers[0].step()
        model.update_learning_rate(iteration, warmup)
        seen.append(model.get_current_learning_rate()[0])
    return seen


def test_a_warm_up_rises_linearly_and_is_then_constant():
    seen = warmed_rates(model_with(None, lr=0.4), range(1, 8), 4)
    assert seen == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4])


def test_a_warm_up_leaves_a_schedule_its_own_rates():
    schedule = {'type': 'CosineAnnealingLR', 'T_max': 20, 'eta_min': 1e-6}
    plain = rates(schedule, 20)
    assert warmed_rates(model_with(schedule), range(1, 21), 5)[4:] == pytest.approx(plain[4:])


def test_a_warm_up_goes_on_from_the_state_of_an_optimiser():
    schedule = {'type': 'CosineAnnealingLR', 'T_max': 20, 'eta_min': 1e-6}
    whole = warmed_rates(model_with(schedule), range(1, 21), 9)
    first = model_with(schedule)
    warmed_rates(first, range(1, 6), 9)
    second = model_with(schedule)
    second.optimizers[0].load_state_dict(first.optimizers[0].state_dict())
    second.schedulers[0].load_state_dict(first.schedulers[0].state_dict())
    assert warmed_rates(second, range(6, 21), 9) == pytest.approx(whole[5:])


def test_what_a_run_does_otherwise_than_its_beginning_is_told():
    options = {
        'manual_seed': 1, 'world_size': 1, 'network_g': {'type': 'PReNet'},
        'datasets': {'train': {'dataroot_lq': 'a', 'gt_size': 64, 'num_worker_per_gpu': 4}},
        'train': {'total_iter': 5, 'optim_g': {'lr': 1}, 'pixel_opt': {'type': 'L1Loss'}, 'accumulate': 1},
    }  # fmt: skip
    state = {'beginning': beginning_of(options)}
    changed = copy.deepcopy(options)
    changed['datasets']['train'] |= {'dataroot_lq': 'b', 'num_worker_per_gpu': 0}
    changed['train'] |= {'total_iter': 9, 'accumulate': 2, 'pixel_opt': {'type': 'MSELoss'}}
    assert changes(state, options) == []
    assert changes({}, changed) == []
    assert changes(state, changed) == [
        'datasets.train.dataroot_lq was a, now b', 'train.pixel_opt.type was L1Loss, now MSELoss',
        'train.accumulate was 1, now 2',
    ]  # fmt: skip


@pytest.mark.parametrize(('name', 'options'), [('SparseAdam', {}), ('AdamW', {'differentiable': True})])
def test_an_optimiser_that_cannot_take_a_step_is_told(name, options):
    with pytest.raises(InputError, match=f'train.optim_g: {name} cannot take a step with these options'):
        check_steps(optimiser(name, **options), [])
