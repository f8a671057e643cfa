"""What a run asks of this computer: devices, memory, disk, processes and packages."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from ddsa_arch.errors import InputError

FLOAT_BYTES = 4  # weights are kept in float32
OPTIMISER_COPIES = 2  # of all weights, in a state: AdamW's two moments; others are taken to be like it
IN_WRITING = 2  # checkpoints beside those that stay: the one being written, and the latest or best
MIB = 2**20
MOST_THREADS = 4  # for each core
FEW_WORKERS = 64  # on computers of few cores too: they wait for a disk


def check_devices(num_gpu: int) -> None:
    """Refuse a run on GPUs where torch sees none.

    Raises:
        InputError: naming the key.
    """
    if num_gpu > 0 and not torch.cuda.is_available():
        raise InputError(f'num_gpu: {num_gpu}, but torch {torch.__version__} sees no CUDA GPU; set num_gpu: 0')


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


def check_memory(net: nn.Module) -> None:
    """A network whose weights alone are larger than the memory is no network for this computer."""
    needed = sum(t.numel() for t in (*net.parameters(), *net.buffers())) * FLOAT_BYTES
    memory = psutil.virtual_memory().total
    if needed > memory:
        raise InputError(
            f'network_g: the weights of {type(net).__name__} take {needed / MIB:,.0f} MiB, and this computer has '
            f'{memory / MIB:,.0f} MiB; make it smaller'
        )


def check_disk(options: dict[str, Any], net: nn.Module) -> None:
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


def check_loggers(logger: dict[str, Any]) -> None:
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
