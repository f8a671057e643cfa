"""Everything that can be found wrong before a run makes its first folder."""

from __future__ import annotations

import copy
import importlib.util
import math
import os
import random
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils.data import Dataset

from ddsa_arch.archs.building import build_network
from ddsa_arch.archs.weights import fit_weights, untrained_tensors
from ddsa_arch.errors import InputError, shown
from ddsa_arch.files.pair_sources import is_pattern
from ddsa_arch.models.best import BestWeights
from ddsa_arch.models.optimisation import build_optimiser, build_schedulers, check_steps
from ddsa_arch.models.progressive import ProgressivePatches
from ddsa_arch.models.restore import PLAIN, Recipe
from ddsa_arch.models.scoring import needs_target
from ddsa_arch.training.schedules import check_schedules, schedule_doubts

FLOAT_BYTES = 4  # weights are kept in float32
OPTIMISER_COPIES = 2  # of all weights, in a state: AdamW's two moments; others are taken to be like it
IN_WRITING = 2  # checkpoints beside those that stay: the one being written, and the latest or best
MIB = 2**20
WITHOUT_TARGET = 'val.metrics_without_target'
SAMPLE_SHAPE = (128, 256, 3)  # of an image on which metrics are tried
TEST_SIZE = 64  # about the side of an image on which networks are tried, in pixels
CHANNELS = 3
LOOKS_AT_VALUES = (DataDependentOutputException, DynamicOutputShapeException)  # of tensors that have shapes alone
LOADING_LOSSES = ('PerceptualLoss',)  # which BasicSR gives the weights of VGG
MOST_THREADS = 4  # for each core
FEW_WORKERS = 64  # on computers of few cores too: they wait for a disk
MOST_PATCHES = 10**9  # of an epoch, whose order is kept in memory


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
        absent = [root for root in roots if not (is_pattern(root) or Path(root).exists())]
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
    _check_model_type(options['model_type'])
    for key in ('pretrain_network_g', 'resume_state'):
        path = options['path'].get(key)
        if path and not Path(path).is_file():
            kind = 'is a folder, wanted a file' if Path(path).is_dir() else ''
            raise InputError(f'path.{key}: {path} {kind}' if kind else f'path.{key}: no file {path}')
    stand_in = _StandIn.of(options['network_g'])
    net = stand_in.net
    _check_memory(net)
    if options['is_train']:
        _check_training(options, net)
        _check_loggers(options['logger'])
        _check_disk(options, net)
    _check_weights(options, net)
    recipe = Recipe(**options['val'].get('restore') or {})
    recipe.check(net)
    if options['is_train'] and options['val'].get('best'):
        validated = [d['name'] for d in options['datasets'].values() if d['phase'] != 'train']
        BestWeights(options['val']['best'], options['val'].get('metrics') or {}, validated)
    _check_metrics(options['val'].get('metrics') or {}, 'val.metrics')
    if any(not d.get('dataroot_gt') for d in options['datasets'].values() if d['phase'] != 'train'):
        _check_metrics(options['val'].get('metrics_without_target') or {}, WITHOUT_TARGET)
    sets: dict[str, Any] = {}  # Any: sets of BasicSR have a length, which torch's Dataset does not promise
    for phase, dataset in options['datasets'].items():
        built: Any = _build_set(phase, dataset)
        sets[dataset['name']] = built
        if dataset['phase'] == 'train':
            _check_shapes(options, built, stand_in, recipe)
            _check_batch(len(built) * dataset.get('dataset_enlarge_ratio', 1), dataset, options, world_size)
    if not options['is_train']:
        _check_shapes(options, None, stand_in, recipe)
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
        except InputError as error:
            if not isinstance(error.__cause__, RuntimeError | TypeError):
                raise
            return cls(build_network(network_g), mode)  # it looks at values while it is built, or fails again


def check_processes(options: dict[str, Any]) -> None:
    """Refuse more threads or loading processes than any computer of this size has a use for.

    Raises:
        InputError: naming the key.
    """
    cores = os.cpu_count() or 1
    threads = options.get('threads')
    if threads and threads > MOST_THREADS * cores:
        raise InputError(
            f'threads: {threads} is above {MOST_THREADS * cores}, {MOST_THREADS} for each of the {cores} cores here; '
            'leave it out for one a core'
        )
    for phase, dataset in options['datasets'].items():
        workers = dataset.get('num_worker_per_gpu', 0)
        if workers > max(FEW_WORKERS, MOST_THREADS * cores):
            raise InputError(
                f'datasets.{phase}.num_worker_per_gpu: {workers} is above {max(FEW_WORKERS, MOST_THREADS * cores)}, '
                f'with {cores} cores here; try {cores}'
            )


def _check_model_type(name: str) -> None:
    """BasicSR's own model classes know neither these options nor what the pipeline does with a model."""
    kind = MODEL_REGISTRY.get(name)
    if kind.__module__.split('.')[0] == 'basicsr':
        raise InputError(
            f'model_type: {name} is a class of BasicSR itself, which lacks the optimisers and schedules by name, the '
            'padding of images of any size, networks with several outputs, states to go on from exactly, and tables '
            'of scores; set model_type: DerainModel, or register a class of your own that inherits from it'
        )


def _check_memory(net: nn.Module) -> None:
    """A network whose weights alone are larger than the memory is no network for this computer."""
    needed = sum(t.numel() for t in (*net.parameters(), *net.buffers())) * FLOAT_BYTES
    memory = psutil.virtual_memory().total
    if needed > memory:
        raise InputError(
            f'network_g: the weights of {type(net).__name__} take {needed / MIB:,.0f} MiB, and this computer has '
            f'{memory / MIB:,.0f} MiB; make it smaller'
        )


def _check_loggers(logger: dict[str, Any]) -> None:
    """BasicSR loads these packages when the experiment has its folder already."""
    if logger.get('use_tb_logger') and not _is_installed('tensorboard'):
        raise InputError(
            'logger.use_tb_logger: the package tensorboard is not installed; pip install tensorboard, or set false'
        )
    if not (logger.get('wandb') or {}).get('project'):
        return
    if not logger.get('use_tb_logger'):
        raise InputError('logger.wandb: it takes its figures from TensorBoard; set logger.use_tb_logger: true')
    if not _is_installed('wandb'):
        raise InputError('logger.wandb: the package wandb is not installed; pip install wandb, or set project: ~')


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _check_weights(options: dict[str, Any], net: nn.Module) -> None:
    """Read the weights that the run begins with, and see whether they fit the network."""
    paths = options['path']
    path = paths.get('pretrain_network_g')
    if not path:
        return
    try:
        _, loaded = fit_weights(net, path, paths['param_key_g'], paths['strict_load_g'])
    except InputError as error:
        raise InputError(f'path.pretrain_network_g: {error}') from error
    if loaded.random and not options['is_train']:
        told = untrained_tensors(net, path, loaded)
        raise InputError(f'path.pretrain_network_g: {told}. A test needs all of them; set strict_load_g: true')


def _build_set(phase: str, options: dict[str, Any]) -> Dataset:
    """A data set; one of another package gives its first image too, as it may miss an option only then."""
    kind = DATASET_REGISTRY.get(options['type'])
    place = f'datasets.{phase}: {options["type"]}'
    if kind.__module__.startswith('ddsa_arch.'):
        return kind(options)
    try:
        built = kind(copy.deepcopy(options))
    except InputError:
        raise
    except Exception as error:  # whatever it does wrong with its options
        raise InputError(f'{place} cannot be built: {_told(error)}') from error
    if not len(built):
        raise InputError(f'{place} has no image; correct its data roots')
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 (what such sets draw from)
    try:
        item = kind(copy.deepcopy(options))[0]  # another object: what one opens, the loading processes would share
    except Exception as error:
        raise InputError(f'{place} cannot give its first image: {_told(error)}') from error
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
    missing = [key for key in ('lq', 'lq_path') if not isinstance(item, dict) or key not in item]
    if missing:
        raise InputError(f'{place} gives no {" and no ".join(missing)} with its first image; it is no set of pairs')
    return built


def _told(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f'the option {error} is missing'
    return f'{type(error).__name__}: {shown(str(error))}'


def _doubts(options: dict[str, Any]) -> list[str]:
    """What an option file may ask for, although hardly anybody wants it."""
    val = options['val']
    with_target = {name: metric for name, metric in (val.get('metrics') or {}).items() if needs_target(metric['type'])}
    doubts = [
        f'datasets.{phase}: it has no dataroot_gt, and no metric of val.metrics_without_target; it will have no scores'
        for phase, dataset in options['datasets'].items()
        if dataset['phase'] != 'train' and not dataset.get('dataroot_gt') and not val.get('metrics_without_target')
        and len(with_target) == len(val.get('metrics') or {})
    ]  # fmt: skip
    return doubts + _doubts_of_training(options) if options['is_train'] else doubts


def _doubts_of_training(options: dict[str, Any]) -> list[str]:
    train, total = options['train'], options['train']['total_iter']
    doubts = schedule_doubts(train)
    validates = any(dataset['phase'] == 'val' for dataset in options['datasets'].values())
    if validates and options['val']['val_freq'] > total:
        doubts.append(
            f'val.val_freq: {options["val"]["val_freq"]} is more than train.total_iter: {total}; '
            'the run is validated at its end alone'
        )
    if options['logger']['save_checkpoint_freq'] > total:
        doubts.append(
            f'logger.save_checkpoint_freq: {options["logger"]["save_checkpoint_freq"]} is more than '
            f'train.total_iter: {total}; no state is saved to go on from'
        )
    if train['optim_g'].get('maximize'):
        doubts.append('train.optim_g.maximize: the loss is made large, not small; set it to false')
    return doubts


def _check_training(options: dict[str, Any], net: nn.Module) -> None:
    """Build the optimiser and the schedules once for a stand-in, and look for the blocks to compute anew."""
    train = options['train']
    arguments = {k: v for k, v in train['optim_g'].items() if k != 'type'}
    dimensions = sorted({parameter.ndim for parameter in net.parameters() if parameter.requires_grad})
    if not dimensions:
        raise InputError(f'network_g: {type(net).__name__} has no weights, so there is nothing to train')
    parameters = [nn.Parameter(torch.zeros([2] * count)) for count in dimensions]
    optimiser = build_optimiser(train['optim_g']['type'], parameters, **arguments)
    schedulers = build_schedulers(optimiser, train['scheduler']) if train.get('scheduler') else []
    check_schedules(train)
    check_steps(optimiser, schedulers)
    if train.get('progressive'):
        _check_progressive(options)
    _check_patch_sizes(options, net)
    if train['checkpoint_blocks'] and not getattr(net, 'block_types', ()):
        raise InputError(
            f'train.checkpoint_blocks: {type(net).__name__} does not name its blocks; '
            'give its class `block_types = (Block,)`, or set checkpoint_blocks: false'
        )


def _check_shapes(options: dict[str, Any], dataset: Dataset | None, stand_in: _StandIn, recipe: Recipe = PLAIN) -> None:
    """Give the network an image, and the losses of a training what it makes of it.

    Shapes alone go through, nothing is computed; a network of the user's that looks at values is left to the run.

    Args:
        options: of the run.
        dataset: to train on; None in a test.
        stand_in: the network.
        recipe: by which a test prepares images.
    """
    net, name = stand_in.net, options['network_g']['type']
    losses = {} if dataset is None else _build_losses(options['train'])
    tile = getattr(net, 'fixed_size', None) or recipe.tile_size
    multiple = recipe.multiple(net)
    size = tile or -(-TEST_SIZE // multiple) * multiple
    key, batch, channels = 'network_g', 1, CHANNELS
    if dataset is not None:
        size = options['datasets']['train'].get('gt_size') or SAMPLE_SHAPE[0]
        key, batch, channels = 'datasets.train.gt_size', 2, getattr(dataset, 'input_channels', CHANNELS)
    image, target = torch.Size((batch, channels, size, size)), torch.Size((batch, CHANNELS, size, size))
    net.train(dataset is not None)
    with stand_in.mode, torch.no_grad():
        try:
            outputs = net(torch.zeros(image))
        except ValueError as error:
            raise InputError(f'{key}: {size}: {error}' if dataset is not None else f'{key}: {name}: {error}') from error
        except Exception as error:
            if isinstance(error, LOOKS_AT_VALUES) or not _fails_in_earnest(options, image):
                return
            raise InputError(
                f'network_g: {name} takes no images of {channels} channels and {size} x {size} pixels (images are '
                f'RGB): {type(error).__name__}: {shown(str(error))}'
            ) from error
        _check_output(name, outputs, target)
        for loss_name, loss in losses.items():
            try:
                value = loss(outputs, torch.zeros(target))
            except ValueError as error:
                raise InputError(f'train.{loss_name}: {error}') from error
            except Exception:
                value = None  # it looks at values
            if value is None:
                continue
            if isinstance(value, torch.Tensor) and value.numel() != 1:
                raise InputError(
                    f'train.{loss_name}: {type(loss).__name__} gives {value.numel():,} numbers, wanted one; '
                    'set its reduction: mean'
                )


def _fails_in_earnest(options: dict[str, Any], image: torch.Size) -> bool:
    """Whether a network fails with numbers too, and not for having shapes alone."""
    try:
        with torch.no_grad():
            build_network(options['network_g'])(torch.zeros(image))
    except Exception:
        return True
    return False


def _check_output(name: str, outputs: Any, wanted: torch.Size) -> None:
    tensors = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    if not isinstance(tensors, list | tuple) or not all(isinstance(t, torch.Tensor) for t in tensors) or not tensors:
        raise InputError(
            f'network_g: {name} gives {shown(type(outputs).__name__)}, wanted an image, or a list whose last entry is '
            'the final one'
        )
    found = tensors[-1].shape
    if found != wanted:
        raise InputError(
            f'network_g: {name} turns images of {_size(wanted)} into {_size(found)}; wanted the same size, and '
            f'{CHANNELS} channels (images are RGB). Check its arguments'
        )


def _size(shape: torch.Size) -> str:
    if len(shape) != 4:
        return f'a tensor of shape {tuple(shape)}'
    return f'{shape[1]} channels and {shape[3]} x {shape[2]} pixels'


def _build_losses(train: dict[str, Any]) -> dict[str, nn.Module]:
    """The losses of a training by their names in ``train``, but for those that load a network from the internet."""
    sections = {key: train.get(key) for key in ('pixel_opt', 'perceptual_opt')}
    sections |= {f'losses.{name}': loss for name, loss in (train.get('losses') or {}).items()}
    losses = {}
    for name, section in sections.items():
        if section is None:
            continue
        kind = LOSS_REGISTRY.get(section['type'])
        if section['type'] in LOADING_LOSSES:
            continue
        try:
            built = kind(**{k: v for k, v in section.items() if k != 'type'})
        except Exception as error:  # whatever it does wrong with its arguments
            raise InputError(f'train.{name}: {section["type"]} cannot be built: {error or type(error)}') from error
        if isinstance(built, nn.Module):
            losses[name] = built
    return losses


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
        if not values or not all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in values):
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
        except Exception as error:  # whatever it does wrong with its options
            raise InputError(f'{key}.{name}: {metric["type"]} cannot be used: {error or type(error)}') from error
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
    if patches > MOST_PATCHES:
        raise InputError(
            f'datasets.train.dataset_enlarge_ratio: {dataset["dataset_enlarge_ratio"]} makes {patches:,} patches in an '
            f'epoch, wanted at most {MOST_PATCHES:,}; lower it'
        )
    devices = world_size if options['dist'] else max(1, options['num_gpu'])
    batch = dataset['batch_size_per_gpu'] * options['train']['accumulate'] * devices
    if patches < batch:
        raise InputError(
            f'datasets.train: {patches} patches in an epoch do not fill one batch of {batch}; lower '
            f'batch_size_per_gpu or train.accumulate, or set dataset_enlarge_ratio: {-(-batch // patches)}'
        )
