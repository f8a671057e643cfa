"""Everything that can be found wrong before a run makes its first folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY
from torch import nn
from torch.utils.data import Dataset

from ddsa_arch.ops.errors import InputError


def build_network(network_g: dict[str, Any], device: str = 'cpu') -> nn.Module:
    """A registered network from its options.

    Args:
        network_g: ``{type, ...}``, checked.
        device: where it is built; ``meta`` takes no memory for weights, and tells whether the arguments go together.

    Raises:
        InputError: they do not; the network's own message.
    """
    arguments = {k: v for k, v in network_g.items() if k != 'type'}
    try:
        with torch.device(device):
            return ARCH_REGISTRY.get(network_g['type'])(**arguments)
    except (ValueError, TypeError) as error:
        raise InputError(f'network_g: {network_g["type"]} cannot be built: {error}') from error


def check_run(options: dict[str, Any], world_size: int) -> dict[str, Dataset]:
    """Check devices, files, network and data sets of a run.

    Args:
        options: from ``load_options``, completed by ``complete``.
        world_size: processes of the run.

    Returns:
        The data sets by their ``name``, ready for the pipeline.

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
    build_network(options['network_g'], 'meta')
    sets = {}
    for dataset in options['datasets'].values():
        built = DATASET_REGISTRY.get(dataset['type'])(dataset)
        sets[dataset['name']] = built
        if dataset['phase'] == 'train':
            _check_batch(len(built) * dataset.get('dataset_enlarge_ratio', 1), dataset, options, world_size)
    return sets


def _check_batch(patches: int, dataset: dict[str, Any], options: dict[str, Any], world_size: int) -> None:
    """BasicSR drops an incomplete batch: with fewer patches than one batch it would train for no step at all."""
    devices = world_size if options['dist'] else max(1, options['num_gpu'])
    batch = dataset['batch_size_per_gpu'] * devices
    if patches < batch:
        raise InputError(
            f'datasets.train: {patches} patches in an epoch do not fill one batch of {batch}; '
            f'lower batch_size_per_gpu or set dataset_enlarge_ratio: {-(-batch // patches)}'
        )
