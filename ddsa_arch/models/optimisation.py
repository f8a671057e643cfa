"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from basicsr.models import lr_scheduler as basicsr_schedulers
from mmengine.optim import scheduler as mmengine_schedulers
from torch.nn import Parameter
from torch.optim import Optimizer

from ddsa_arch.errors import InputError, did_you_mean

BASICSR_SCHEDULERS = {
    'MultiStepRestartLR': basicsr_schedulers.MultiStepRestartLR,
    'CosineAnnealingRestartLR': basicsr_schedulers.CosineAnnealingRestartLR,
}
OPTIMISERS = {
    name: kind
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, Optimizer) and kind is not Optimizer and name != 'LBFGS'
}
SCHEDULERS = {
    name: kind
    for name, kind in vars(mmengine_schedulers).items()
    if name.endswith('LR') and name != 'ReduceOnPlateauLR' and isinstance(kind, type)
} | BASICSR_SCHEDULERS

NOT_OF_WEIGHTS = ('total_iter', 'compile', 'checkpoint_blocks', 'max_skipped')
ONLY_LOADING = (
    'name', 'num_worker_per_gpu', 'persistent_workers', 'pin_memory', 'prefetch_mode', 'cache_images', 'io_backend',
    'phase', 'scale',
)  # fmt: skip
PLAN = ('optim_g', 'scheduler')  # of the options in train: what a training state brings back as it was


def plan_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the options say of the optimiser and the learning rate."""
    return copy.deepcopy({key: options['train'].get(key) for key in PLAN})


def check_plan(state: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse to resume where the options ask for another optimiser or schedule than the state would bring back.

    Args:
        state: of a training; those of older releases do not tell, and pass.
        options: of the run that goes on.

    Raises:
        InputError: they differ; its message names the keys.
    """
    begun, wanted = state.get('plan') or {}, plan_of(options)
    changed = [line for key in begun for line in _differences(f'train.{key}', begun[key], wanted.get(key))]
    if changed:
        raise InputError(
            f'the run began with other options: {"; ".join(changed)}. A resumed run keeps its optimiser and its '
            'schedule: put these back, or begin a new run from its weights (path.pretrain_network_g)'
        )


def beginning_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the options say of how the weights come about, beside the optimiser and the learning rate."""
    train = {key: value for key, value in options['train'].items() if key not in (*PLAN, *NOT_OF_WEIGHTS)}
    data = {k: v for k, v in options['datasets']['train'].items() if k not in ONLY_LOADING}
    told = {'manual_seed': options['manual_seed'], 'network_g': options['network_g'], 'datasets.train': data}
    return copy.deepcopy(told | {'train': train, 'processes': options['world_size']})


def changes(state: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """Return what a run that goes on has otherwise than the run that wrote the state; older states do not tell.

    Optimiser and schedule are left to ``check_plan``.
    """
    begun, wanted = state.get('beginning') or {}, beginning_of(options)
    return [line for key in begun for line in _differences(key, begun[key], wanted.get(key))]


def _differences(name: str, begun: Any, wanted: Any) -> list[str]:
    if isinstance(begun, Mapping) and isinstance(wanted, Mapping):
        keys = [*begun, *(key for key in wanted if key not in begun)]
        return [d for key in keys for d in _differences(f'{name}.{key}', begun.get(key), wanted.get(key))]
    return [] if begun == wanted else [f'{name} was {begun}, now {wanted}']


def build_optimiser(name: str, params: Iterable[Parameter], **options: Any) -> Optimizer:
    """Build an optimiser of torch.optim by its name; LBFGS is left out, as it needs a closure.

    Raises:
        InputError: unknown name, or options that the optimiser does not take.
    """
    if name not in OPTIMISERS:
        raise InputError(f'train.optim_g.type: no optimiser {name!r} in torch.optim{did_you_mean(name, OPTIMISERS)}')
    try:
        optimiser = OPTIMISERS[name](params, **options)
    except Exception as error:  # whatever an optimiser does wrong with its options
        raise InputError(f'train.optim_g: {name} does not take these options: {error or type(error)}') from error
    for group in optimiser.param_groups:
        group.setdefault('initial_lr', group['lr'])  # which schedules set, and a warm-up alone needs
    return optimiser


def build_schedulers(optimiser: Optimizer, options: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> list[Any]:
    """Build learning-rate schedules, which are stepped once for each iteration.

    Args:
        optimiser: whose learning rate they set.
        options: ``{type, ...}`` or a list of them, each with the ``begin`` and ``end`` of its iterations. Types are
            mmengine's parameter schedulers, which count iterations here, and BasicSR's two schedules with restarts.

    Raises:
        InputError: unknown name, or options that the schedule does not take.
    """
    entries = [options] if isinstance(options, Mapping) else list(options)
    # those of BasicSR are torch's and must wrap the optimiser before mmengine's do
    entries.sort(key=lambda entry: entry.get('type') not in BASICSR_SCHEDULERS)
    built = []
    for entry in entries:
        arguments = dict(entry)
        name = arguments.pop('type', None)
        if name not in SCHEDULERS:
            hint = did_you_mean(str(name), SCHEDULERS)
            raise InputError(f'train.scheduler.type: no learning-rate schedule {name!r}{hint}')
        if name not in BASICSR_SCHEDULERS:
            arguments.setdefault('by_epoch', False)
        try:
            built.append(SCHEDULERS[name](optimiser, **arguments))
        except Exception as error:  # whatever a schedule does wrong with its options
            raise InputError(f'train.scheduler: {name} does not take these options: {error or type(error)}') from error
    return built


def check_steps(optimiser: Optimizer, schedulers: Iterable[Any], steps: int = 3) -> None:
    """Take some steps without gradients: several options are looked at only then.

    Raises:
        InputError: the optimiser or a schedule cannot take a step.
    """
    kind = type(optimiser).__name__
    for group in optimiser.param_groups:
        for parameter in group['params']:
            parameter.grad = torch.zeros_like(parameter)
    for _ in range(steps):
        try:
            optimiser.step()
        except Exception as error:
            raise InputError(f'train.optim_g: {kind} cannot take a step with these options: {error}') from error
        for scheduler in schedulers:
            try:
                scheduler.step()
            except Exception as error:
                told = f'{type(scheduler).__name__} cannot take a step with these options: {error or type(error)}'
                raise InputError(f'train.scheduler: {told}') from error
