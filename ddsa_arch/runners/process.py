"""What a command sets up for its own process; importing the library changes none of it."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import os
import platform
import subprocess
from collections.abc import Iterator

import torch
import torch.distributed

from ddsa_arch.ops.errors import InputError

# mallopt parameters of glibc's malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let the process keep the memory that tensors free; True where that is possible (glibc).

    By default every large tensor is a fresh mapping whose pages fault in one by one, which costs a training step on
    the CPU a third of its time.
    """
    if platform.libc_ver()[0] != 'glibc':
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_MAX, 0)) and bool(libc.mallopt(M_TRIM_THRESHOLD, LARGEST_INT))


def detect_launcher(launcher: str) -> str:
    """``pytorch`` when torchrun started this process and the command did not say so."""
    started_by_torchrun = int(os.environ.get('WORLD_SIZE', '1')) > 1 and 'RANK' in os.environ
    return 'pytorch' if launcher == 'none' and started_by_torchrun else launcher


def is_first_process() -> bool:
    """Whether this process speaks for all of a run."""
    return os.environ.get('RANK', '0') == '0'


@contextlib.contextmanager
def process_group(launcher: str, use_gpu: bool, port: int | None = None) -> Iterator[None]:
    """Join the processes of a distributed run for the time of the block: nccl on GPUs, gloo on CPUs.

    Stands in for BasicSR's init_dist, which divides by the number of GPUs and takes the rank for the local one.

    Args:
        launcher: ``none``, ``pytorch`` (torchrun) or ``slurm``.
        use_gpu: one GPU for each process of a machine.
        port: of the first process, under Slurm.

    Raises:
        InputError: the launcher's variables are not there.
    """
    if launcher == 'none':
        yield
        return
    if launcher == 'slurm':
        _variables_from_slurm(port)
    if 'RANK' not in os.environ:
        raise InputError('--launcher pytorch: start the command with torchrun, which sets RANK and WORLD_SIZE')
    local_rank = int(os.environ.get('LOCAL_RANK', os.environ['RANK']))
    if use_gpu:
        if local_rank >= torch.cuda.device_count():
            raise InputError(
                f'process {local_rank} of this machine has no GPU, there are {torch.cuda.device_count()}; '
                'start fewer processes (--nproc_per_node) or set num_gpu: 0'
            )
        torch.cuda.set_device(local_rank)
    timeout = datetime.timedelta(minutes=30)
    torch.distributed.init_process_group('nccl' if use_gpu else 'gloo', timeout=timeout)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def _variables_from_slurm(port: int | None) -> None:
    """Give torch.distributed the variables it reads, from those that Slurm sets."""
    try:
        rank, tasks, nodes = (os.environ[f'SLURM_{n}'] for n in ('PROCID', 'NTASKS', 'NODELIST'))
    except KeyError as error:
        raise InputError(f'--launcher slurm: {error.args[0]} is not set; start the command with srun') from error
    address = subprocess.run(
        ['scontrol', 'show', 'hostnames', nodes], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    os.environ.update(
        RANK=rank, WORLD_SIZE=tasks, LOCAL_RANK=os.environ.get('SLURM_LOCALID', '0'), MASTER_ADDR=address
    )
    os.environ.setdefault('MASTER_PORT', '29500')
    if port is not None:
        os.environ['MASTER_PORT'] = str(port)
