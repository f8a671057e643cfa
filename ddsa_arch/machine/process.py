"""The settings that a command makes for its own process; importing the library makes none of them."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import os
import platform
import signal
import subprocess
from collections.abc import Iterator

import torch
import torch.distributed

from ddsa_arch.errors import InputError

# mallopt parameters of glibc's malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_MMAP_MAX = -4
LARGEST_INT = 2**31 - 1
MOST_KEPT = 2**25  # bytes of a block: the largest M_MMAP_THRESHOLD that glibc takes
CUBLAS_VARIABLE = 'CUBLAS_WORKSPACE_CONFIG'  # without it cuBLAS refuses to be deterministic
PR_SET_PDEATHSIG = 1  # of Linux's sys/prctl.h
TIMEOUT = 30.0  # minutes that a process waits for the others


def can_keep_memory() -> bool:
    """Whether ``keep_freed_memory`` has an effect here."""
    return platform.libc_ver()[0] == 'glibc'


def keep_freed_memory(of_any_size: bool = True) -> bool:
    """Let the process keep the memory that tensors free; True where that is possible (glibc).

    By default every large tensor is a fresh mapping whose pages fault in one by one, which costs a training step on
    the CPU a third of its time.

    Args:
        of_any_size: False gives tensors of more than 32 MiB back, as the pieces that they leave would not fit the next
            image when images have many sizes. The strips of an image stay below that.
    """
    if not can_keep_memory():
        return False
    libc = ctypes.CDLL(None)
    kept = libc.mallopt(M_MMAP_MAX, 0) if of_any_size else libc.mallopt(M_MMAP_THRESHOLD, MOST_KEPT)
    return bool(kept) and bool(libc.mallopt(M_TRIM_THRESHOLD, LARGEST_INT))


def detect_launcher(launcher: str) -> str:
    """Return the launcher, which is ``pytorch`` if torchrun started this process and none was named."""
    started_by_torchrun = int(os.environ.get('WORLD_SIZE', '1')) > 1 and 'RANK' in os.environ
    return 'pytorch' if launcher == 'none' and started_by_torchrun else launcher


def is_first_process() -> bool:
    """Tell whether this process is the one that prints and writes for all processes of a run."""
    return os.environ.get('RANK', '0') == '0'


@contextlib.contextmanager
def process_group(launcher: str, use_gpu: bool, port: int | None = None, timeout: float = TIMEOUT) -> Iterator[None]:
    """Join the processes of a distributed run for the time of the block: nccl on GPUs, gloo on CPUs.

    Stands in for BasicSR's init_dist, which divides by the number of GPUs and takes the rank for the local one.

    Args:
        launcher: ``none``, ``pytorch`` (torchrun) or ``slurm``.
        use_gpu: one GPU for each process of a machine.
        port: of the first process, under Slurm.
        timeout: minutes that a process waits for the others.

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
    _end_with_parent()
    torch.distributed.init_process_group('nccl' if use_gpu else 'gloo', timeout=datetime.timedelta(minutes=timeout))
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def _end_with_parent() -> None:
    """Let Linux end this process when torchrun dies, which would otherwise leave its processes running."""
    if platform.system() == 'Linux':
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def torch_settings(tf32: bool, deterministic: bool, threads: int | None) -> Iterator[None]:
    """Choose how exactly CUDA computes and how many threads compute on the CPU, for the time of the block.

    Args:
        tf32: multiply float32 matrices and convolve in TF32.
        deterministic: algorithms that give the same bits in every run; an operation that has none raises.
        threads: None leaves torch's choice.
    """
    threads_before = torch.get_num_threads()
    before = (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.are_deterministic_algorithms_enabled(),
        os.environ.get(CUBLAS_VARIABLE),
    )
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.use_deterministic_algorithms(deterministic)
    if threads:
        torch.set_num_threads(threads)
    if deterministic:
        os.environ[CUBLAS_VARIABLE] = ':4096:8'
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before[:2]
        torch.use_deterministic_algorithms(before[2])
        torch.set_num_threads(threads_before)
        if before[3] is None:
            os.environ.pop(CUBLAS_VARIABLE, None)


def _variables_from_slurm(port: int | None) -> None:
    """Give torch.distributed the variables it reads, from those that Slurm sets."""
    try:
        rank, tasks, nodes = (os.environ[f'SLURM_{n}'] for n in ('PROCID', 'NTASKS', 'NODELIST'))
    except KeyError as error:
        raise InputError(f'--launcher slurm: {error.args[0]} is not set; start the command with srun') from error
    address = subprocess.run(
        ['scontrol', 'show', 'hostnames', nodes], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    os.environ.update(RANK=rank, WORLD_SIZE=tasks, LOCAL_RANK=os.environ.get('SLURM_LOCALID', '0'), MASTER_ADDR=address)
    os.environ.setdefault('MASTER_PORT', '29500')
    if port is not None:
        os.environ['MASTER_PORT'] = str(port)
