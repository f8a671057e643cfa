"""Everything that can be found wrong before a run makes its first folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import METRIC_REGISTRY, MODEL_REGISTRY
from torch import nn
from torch.utils.data import Dataset

from ddsa_arch.errors import InputError
from ddsa_arch.models.best import BestWeights
from ddsa_arch.models.restore import Recipe
from ddsa_arch.models.scoring import needs_target
from ddsa_arch.training.machine_checks import check_devices, check_disk, check_loggers, check_memory
from ddsa_arch.training.network_checks import StandIn, check_shapes, check_training, check_weights
from ddsa_arch.training.schedules import schedule_doubts
from ddsa_arch.training.set_checks import build_set, check_batch

WITHOUT_TARGET = 'val.metrics_without_target'
SAMPLE_SHAPE = (128, 256, 3)  # of an image on which metrics are tried


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
    check_devices(options['num_gpu'])
    _check_model_type(options['model_type'])
    for key in ('pretrain_network_g', 'resume_state'):
        path = options['path'].get(key)
        if path and not Path(path).is_file():
            kind = 'is a folder, wanted a file' if Path(path).is_dir() else ''
            raise InputError(f'path.{key}: {path} {kind}' if kind else f'path.{key}: no file {path}')
    stand_in = StandIn.of(options['network_g'])
    net = stand_in.net
    check_memory(net)
    if options['is_train']:
        check_training(options, net)
        check_loggers(options['logger'])
        check_disk(options, net)
    check_weights(options, net)
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
        built: Any = build_set(phase, dataset)
        sets[dataset['name']] = built
        if dataset['phase'] == 'train':
            check_shapes(options, built, stand_in, recipe)
            check_batch(len(built) * dataset.get('dataset_enlarge_ratio', 1), dataset, options, world_size)
    if not options['is_train']:
        check_shapes(options, None, stand_in, recipe)
    warnings = [f'datasets: {text}' for built in sets.values() for text in getattr(built, 'warnings', ())]
    return Checked(net, sets, warnings + _doubts(options))


def _check_model_type(name: str) -> None:
    """BasicSR's own model classes know neither these options nor what the pipeline does with a model."""
    kind = MODEL_REGISTRY.get(name)
    if kind.__module__.split('.')[0] == 'basicsr':
        raise InputError(
            f'model_type: {name} is a class of BasicSR itself, which lacks the optimisers and schedules by name, the '
            'padding of images of any size, networks with several outputs, states to go on from exactly, and tables '
            'of scores; set model_type: DerainModel, or register a class of your own that inherits from it'
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
