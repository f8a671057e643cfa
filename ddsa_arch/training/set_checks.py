"""Whether the data sets of a run are there, can be built, and fill a batch."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from ddsa_arch.errors import InputError, shown
from ddsa_arch.files.pair_sources import is_pattern

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


def build_set(phase: str, options: dict[str, Any]) -> Dataset:
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


def check_batch(patches: int, dataset: dict[str, Any], options: dict[str, Any], world_size: int) -> None:
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
