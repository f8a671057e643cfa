"""Everything that can be found wrong before a run makes its first folder."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import Dataset

from ddsa_arch.archs.building import build_network
from ddsa_arch.errors import InputError
from ddsa_arch.models.best import BestWeights
from ddsa_arch.models.optimisation import build_optimiser, build_schedulers
from ddsa_arch.models.progressive import ProgressivePatches
from ddsa_arch.models.restore import Recipe
from ddsa_arch.models.scoring import needs_target

FLOAT_BYTES = 4  # weights are kept in float32
OPTIMISER_COPIES = 2  # of all weights, in a state: AdamW's two moments; others are taken to be like it
IN_WRITING = 2  # checkpoints beside those that stay: the one being written, and the latest or best
MIB = 2**20
WITHOUT_TARGET = 'val.metrics_without_target'
SAMPLE_SHAPE = (128, 256, 3)  # of an image on which metrics are tried


def drop_missing_sets(options: dict[str, Any], allowed: bool) -> None:
    """Take the test sets that are not on the disk out of the options, in place; ``missing_sets`` then names them.

    Args:
        options: of a test, completed.
        allowed: whether a test may go on without them.

    Raises:
        InputError: sets are missing and must not be, or all are.
    """
    missing = {}
    for phase, dataset in options['datasets'].items():
        roots = [dataset[key] for key in ('dataroot_lq', 'dataroot_gt') if dataset.get(key)]
        absent = [root for root in roots if not Path(root).exists()]
        if absent:
            missing[phase] = f'{dataset["name"]} ({absent[0]})'
    if not missing:
        return
    if not allowed or len(missing) == len(options['datasets']):
        remedy = 'make them with `ddsa data prepare`, or correct datasets.*.dataroot_lq and dataroot_gt'
        also = '' if len(missing) == len(options['datasets']) else '; --allow-missing tests on the others'
        raise InputError(f'not on the disk: {", ".join(missing.values())}; {remedy}{also}')
    options['missing_sets'] = [options['datasets'].pop(phase)['name'] for phase in missing]


class Checked(NamedTuple):
    """What the check of a run has built.

    Attributes:
        net: the network, its tensors without memory (fake).
        sets: the data sets by their ``name``, ready for the pipeline.
        warnings: what is allowed and yet looks wrong, one sentence each.
    """

    net: nn.Module
    sets: dict[str, Dataset]
    warnings: list[str]


def check_run(options: dict[str, Any], world_size: int) -> Checked:
    """Check devices, files, network, optimiser, metrics, disk and data sets of a run.

    Args:
        options: from ``load_options``, completed by ``complete``.
        world_size: processes of the run.

    Raises:
        InputError: one message that names the key or the file.
    """
    if options['num_gpu'] > 0 and not torch.cuda.is_available():
        wanted = options['num_gpu']
        raise InputError(f'num_gpu: {wanted}, but torch {torch.__version__} sees no CUDA GPU; set num_gpu: 0')
    for key in ('pretrain_network_g', 'resume_state'):
        path = options['path'].get(key)
        if path and not Path(path).is_file():
            raise InputError(f'path.{key}: no file {path}')
    stand_in = _StandIn.of(options['network_g'])
    net = stand_in.net
    if options['is_train']:
        _check_training(options, net)
        _check_disk(options, net)
    Recipe(**options['val'].get('restore') or {}).check(net)
    if options['is_train'] and options['val'].get('best'):
        validated = [d['name'] for d in options['datasets'].values() if d['phase'] != 'train']
        BestWeights(options['val']['best'], options['val'].get('metrics') or {}, validated)
    _check_metrics(options['val'].get('metrics') or {}, 'val.metrics')
    if any(not d.get('dataroot_gt') for d in options['datasets'].values() if d['phase'] != 'train'):
        _check_metrics(options['val'].get('metrics_without_target') or {}, WITHOUT_TARGET)
    sets = {}
    for dataset in options['datasets'].values():
        built = DATASET_REGISTRY.get(dataset['type'])(dataset)
        sets[dataset['name']] = built
        if dataset['phase'] == 'train':
            _check_losses(options, built, stand_in)
            _check_batch(len(built) * dataset.get('dataset_enlarge_ratio', 1), dataset, options, world_size)
    warnings = [f'datasets: {text}' for built in sets.values() for text in getattr(built, 'warnings', ())]
    return Checked(net, sets, warnings + _doubts(options))


class _StandIn(NamedTuple):
    """A network whose tensors have shapes alone, and the mode in which it computes shapes."""

    net: nn.Module
    mode: FakeTensorMode

    @classmethod
    def of(cls, network_g: dict[str, Any]) -> _StandIn:
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        try:
            with mode:
                return cls(build_network(network_g), mode)
        except RuntimeError:  # it looks at values while it is built, such as BasicSR's SwinIR
            return cls(build_network(network_g), mode)


def _doubts(options: dict[str, Any]) -> list[str]:
    """What an option file may ask for, although hardly anybody wants it."""
    val = options['val']
    with_target = {name: metric for name, metric in (val.get('metrics') or {}).items() if needs_target(metric['type'])}
    return [
        f'datasets.{phase}: it has no dataroot_gt, and no metric of val.metrics_without_target; it will have no scores'
        for phase, dataset in options['datasets'].items()
        if dataset['phase'] != 'train' and not dataset.get('dataroot_gt') and not val.get('metrics_without_target')
        and len(with_target) == len(val.get('metrics') or {})
    ]  # fmt: skip


def _check_training(options: dict[str, Any], net: nn.Module) -> None:
    """Build the optimiser and the schedules once for a stand-in, and look for the blocks to compute anew."""
    train = options['train']
    arguments = {k: v for k, v in train['optim_g'].items() if k != 'type'}
    optimiser = build_optimiser(train['optim_g']['type'], [nn.Parameter(torch.zeros(2, 2))], **arguments)
    if train.get('scheduler'):
        build_schedulers(optimiser, train['scheduler'])
    if train.get('progressive'):
        _check_progressive(options)
    _check_patch_sizes(options, net)
    if train['checkpoint_blocks'] and not getattr(net, 'block_types', ()):
        raise InputError(
            f'train.checkpoint_blocks: {type(net).__name__} does not name its blocks; '
            'give its class `block_types = (Block,)`, or set checkpoint_blocks: false'
        )


def _check_losses(options: dict[str, Any], dataset: Dataset, stand_in: _StandIn) -> None:
    """Build the losses of this package, and give them what the network gives: shapes alone, nothing is computed."""
    train = options['train']
    sections = {'pixel_opt': train.get('pixel_opt')}
    sections |= {f'losses.{name}': loss for name, loss in (train.get('losses') or {}).items()}
    losses = {}
    for name, section in sections.items():
        if section is None or not LOSS_REGISTRY.get(section['type']).__module__.startswith('ddsa_arch.'):
            continue
        try:
            losses[name] = LOSS_REGISTRY.get(section['type'])(**{k: v for k, v in section.items() if k != 'type'})
        except (ValueError, TypeError) as error:
            raise InputError(f'train.{name}: {section["type"]} cannot be built: {error}') from error
    if not losses:
        return
    size = options['datasets']['train'].get('gt_size') or SAMPLE_SHAPE[0]
    with stand_in.mode:
        try:
            outputs = stand_in.net(torch.zeros(2, getattr(dataset, 'input_channels', 3), size, size))
        except ValueError as error:
            raise InputError(f'datasets.train.gt_size: {size}: {error}') from error
        except RuntimeError:  # a network of the user's that looks at values
            return
        for name, loss in losses.items():
            try:
                loss(outputs, torch.zeros(2, 3, size, size))
            except ValueError as error:
                raise InputError(f'train.{name}: {error}') from error


def _check_patch_sizes(options: dict[str, Any], net: nn.Module) -> None:
    """Training pads nothing: patches have a size that the network takes."""
    multiple = getattr(net, 'size_multiple', 1)
    sizes = {'datasets.train.gt_size': [options['datasets']['train'].get('gt_size') or multiple]}
    sizes['train.progressive.patch_sizes'] = (options['train'].get('progressive') or {}).get('patch_sizes', [])
    for key, values in sizes.items():
        for size in values:
            if size % multiple:
                raise InputError(
                    f'{key}: {size} is not a multiple of {multiple}, which {type(net).__name__} needs; '
                    f'try {size + -size % multiple}'
                )


def _check_progressive(options: dict[str, Any]) -> None:
    """Stages of progressive training that go together, and fit into the batches of the loader."""
    train, data = options['train'], options['datasets']['train']
    stages = train['progressive']
    for key in ('iterations', 'patch_sizes', 'batch_sizes'):
        values = stages.get(key)
        if not values or not all(isinstance(v, int) and v > 0 for v in values):
            raise InputError(f'train.progressive.{key}: {values!r}, wanted whole numbers above 0, one for each stage')
    ProgressivePatches(**stages)
    for key, available, name in (
        ('patch_sizes', data.get('gt_size'), 'gt_size'),
        ('batch_sizes', data['batch_size_per_gpu'], 'batch_size_per_gpu'),
    ):
        if available and max(stages[key]) > available:
            raise InputError(
                f'train.progressive.{key}: {max(stages[key])} is more than datasets.train.{name}: {available}; raise it'
            )
    if sum(stages['iterations']) != train['total_iter']:
        raise InputError(
            f'train.progressive.iterations: they sum up to {sum(stages["iterations"])}, '
            f'and train.total_iter is {train["total_iter"]}; make them equal'
        )


def _check_metrics(metrics: dict[str, dict[str, Any]], key: str) -> None:
    """Score a made-up image: a protocol that is not there would be found only at the first validation.

    Metrics of other packages may want images of another kind.
    """
    image = np.random.default_rng(0).integers(0, 256, SAMPLE_SHAPE, np.uint8)
    for name, metric in metrics.items():
        if not METRIC_REGISTRY.get(metric['type']).__module__.startswith('ddsa_arch.'):
            continue
        try:
            calculate_metric({'img': image, 'img2': 255 - image}, metric)
        except (ValueError, TypeError) as error:
            raise InputError(f'{key}.{name}: {metric["type"]} cannot be used: {error}') from error
        if key == WITHOUT_TARGET and needs_target(metric['type']):
            raise InputError(f'{key}.{name}: {metric["type"]} compares with a target; put it into val.metrics')


def _check_disk(options: dict[str, Any], net: nn.Module) -> None:
    """A full disk would end the run at one of its checkpoints, perhaps days from now."""
    tensors = [*net.parameters(), *net.buffers()]
    copies = (2 if options['train']['ema_decay'] > 0 else 1) + OPTIMISER_COPIES
    checkpoint = sum(t.numel() for t in tensors) * FLOAT_BYTES * copies
    logger = options['logger']
    number = math.ceil(options['train']['total_iter'] / logger['save_checkpoint_freq']) + 1  # and the latest
    if logger.get('keep_checkpoints'):
        number = min(number, logger['keep_checkpoints'] + IN_WRITING)
    needed = number * checkpoint
    paths = options['path']
    if options['auto_resume'] or paths.get('resume_state'):  # what is there already is part of it
        there = [*Path(paths['models']).glob('*.pth'), *Path(paths['training_states']).glob('*.state')]
        needed = max(needed - sum(path.stat().st_size for path in there), checkpoint)
    disk = next(p for p in Path(paths['experiments_root']).absolute().parents if p.is_dir())
    free = shutil.disk_usage(disk).free
    if free < needed:
        raise InputError(
            f'{disk}: {free / MIB:,.0f} MiB free, and {number} checkpoints of {checkpoint / MIB:,.0f} MiB need '
            f'{needed / MIB:,.0f} MiB; lower logger.keep_checkpoints, raise logger.save_checkpoint_freq, or make room'
        )


def _check_batch(patches: int, dataset: dict[str, Any], options: dict[str, Any], world_size: int) -> None:
    """BasicSR drops an incomplete batch: with fewer patches than one batch it would train for no step at all."""
    devices = world_size if options['dist'] else max(1, options['num_gpu'])
    batch = dataset['batch_size_per_gpu'] * options['train']['accumulate'] * devices
    if patches < batch:
        raise InputError(
            f'datasets.train: {patches} patches in an epoch do not fill one batch of {batch}; lower '
            f'batch_size_per_gpu or train.accumulate, or set dataset_enlarge_ratio: {-(-batch // patches)}'
        )
