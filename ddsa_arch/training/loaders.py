"""The loaders of a training: BasicSR's, with a sampler that a resumed run can set to where it was."""

from __future__ import annotations

import logging
import math
from typing import Any, NamedTuple

from basicsr.data import build_dataloader
from basicsr.data.data_sampler import EnlargedSampler
from torch.utils.data import DataLoader

from ddsa_arch.data.keyed_sampler import KeyedSampler


class Loaders(NamedTuple):
    """What BasicSR's train pipeline works with, in its order."""

    train: DataLoader
    sampler: KeyedSampler | EnlargedSampler
    validation: list[DataLoader]
    total_epochs: int
    total_iter: int


def train_and_val_loaders(  # Any: sets of BasicSR have a length, which torch's Dataset does not promise
    opt: dict[str, Any], sets: dict[str, Any], logger: logging.Logger, state: dict[str, Any] | None
) -> Loaders:
    """Loaders of all data sets of a training.

    Args:
        opt: options of the run, complete.
        sets: the data sets by their names.
        logger: is told of their sizes.
        state: the training state to continue from, if any; its ``epoch`` is set to that of its iteration.
    """
    val_loaders = []
    common = {'num_gpu': opt['num_gpu'], 'dist': opt['dist'], 'seed': opt['manual_seed']}
    for phase, dataset_options in opt['datasets'].items():
        dataset = sets[dataset_options['name']]
        if phase == 'train':
            sampler = _train_sampler(dataset, dataset_options['dataset_enlarge_ratio'], opt)
            loading = dict(dataset_options)
            loading['batch_size_per_gpu'] *= opt['train']['accumulate']  # the model takes it apart
            loading['persistent_workers'] &= loading['num_worker_per_gpu'] > 0
            train_loader = build_dataloader(dataset, loading, sampler=sampler, **common)
        else:
            val_loaders.append(build_dataloader(dataset, dataset_options, **common))  # the model shares it out
            logger.info(f'{dataset_options["name"]}: {len(dataset)} images to validate on')
    if state and isinstance(sampler, KeyedSampler):
        state['epoch'], done = divmod(state['iter'], len(train_loader))
        sampler.resume(state['epoch'], done * train_loader.batch_size)
    total_iters = int(opt['train']['total_iter'])
    total_epochs = math.ceil(total_iters / len(train_loader))
    logger.info(
        f'{len(train_loader.dataset)} images to train on, {len(train_loader)} steps in an epoch, '
        f'{total_iters} steps in {total_epochs} epochs'
    )
    return Loaders(train_loader, sampler, val_loaders, total_epochs, total_iters)


def _train_sampler(dataset: Any, ratio: int, opt: dict[str, Any]) -> KeyedSampler | EnlargedSampler:
    """Ours for data sets that take a sample's place in the run, BasicSR's for all others."""
    if getattr(dataset, 'takes_places', False):
        return KeyedSampler(len(dataset), opt['world_size'], opt['rank'], ratio, opt['manual_seed'])
    return EnlargedSampler(dataset, opt['world_size'], opt['rank'], ratio)


class Batches:
    """BasicSR's CPUPrefetcher, less the loading processes that it starts for nothing before the first epoch."""

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def reset(self) -> None:
        self.batches = iter(self.loader)

    def next(self) -> dict[str, Any] | None:
        return next(self.batches, None)
