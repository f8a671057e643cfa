"""One row of ``ddsa benchmark``, measured in a process of its own: ``python -m ddsa_arch.benchmarking.row``.

The job comes as one line of JSON on standard input, which stays open: the process ends when whoever started it does.
Each figure goes out as a line of JSON as soon as it is known, so that what was measured before a kill is kept.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import threading
import time
import traceback
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor, nn

from ddsa_arch.archs.building import build_network
from ddsa_arch.archs.complexity import count_operations
from ddsa_arch.errors import InputError
from ddsa_arch.fast import accelerate
from ddsa_arch.fast.memory_format import lay_out
from ddsa_arch.machine.ceiling import Ceiling
from ddsa_arch.machine.memory import PeakMemory, give_back_freed_memory
from ddsa_arch.machine.process import keep_freed_memory, torch_settings
from ddsa_arch.models.compiling import compile_for_inference, compile_for_training
from ddsa_arch.models.optimisation import build_optimiser
from ddsa_arch.models.restore import Recipe, final_output, restore
from ddsa_arch.models.training_step import TrainingStep, check_training_size
from ddsa_arch.ops.tiling import tile_starts
from ddsa_arch.options.loading import check_network, import_modules

DTYPES = {'float32': torch.float32, 'tf32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
MIB = 2**20
LEARNING_RATE = 1e-4
SEED = 0
NO_MEMORY = ('out of memory', "can't allocate memory", 'not enough memory')  # what torch's errors say
Emit = Callable[..., None]  # takes figures by their names


@dataclass(frozen=True)
class Job:
    """What one row measures.

    Args:
        network_g: ``{type, ...}``, as an option file has it.
        imports: modules that register it.
        size_multiple: of H and W, where the network does not say itself.
        height: of the image.
        width: of the image.
        dtype: a key of ``DTYPES``; those of 16 bits are mixed precision by autocast.
        mode: ``inference``, or ``training``: a step of AdamW with the mean of absolute differences as the loss.
        form: ``fast``, or ``plain``: the network as built, channels not last, the process not set up.
        batch: images of a training step.
        device: ``cpu`` or ``cuda``.
        compiled: by torch.compile.
        threads: on the CPU; None leaves torch's choice.
        warmup: runs before the timed ones.
        repeats: timed runs.
        keep_memory: whether freed memory stays with the process; never in the plain form.
        count: whether operations are counted too.
    """

    network_g: dict[str, Any]
    imports: Any
    size_multiple: int | None
    height: int
    width: int
    dtype: str
    mode: str
    form: str
    batch: int
    device: str
    compiled: bool
    threads: int | None
    warmup: int
    repeats: int
    keep_memory: bool
    count: bool

    @property
    def recipe(self) -> Recipe:
        return Recipe(size_multiple=self.size_multiple)

    @property
    def plain(self) -> bool:
        return self.form == 'plain'

    @property
    def training(self) -> bool:
        return self.mode == 'training'

    @property
    def images(self) -> int:
        """Images that go through the network in one run."""
        return self.batch if self.training else 1

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.contiguous_format if self.plain else torch.channels_last


def measure(job: Job, emit: Emit) -> None:
    """Measure a row: size, time to compile, latency, peak memory, operations, in this order.

    Args:
        job: what.
        emit: called with figures by their column's name.

    Raises:
        InputError: what the network, the device or this torch cannot do.
    """
    import_modules(job.imports)
    if job.dtype == 'tf32' and job.device != 'cuda':
        raise InputError(f'there is no tf32 on this {job.device}; it is a mode of NVIDIA GPUs')
    with torch_settings(job.dtype == 'tf32', False, job.threads):
        _measure(job, emit)


def _measure(job: Job, emit: Emit) -> None:
    on_gpu = job.device == 'cuda'
    emit(device_name=torch.cuda.get_device_name() if on_gpu else '', threads=torch.get_num_threads())
    if job.keep_memory and not job.plain and not on_gpu:
        keep_freed_memory(of_any_size=job.training)
    torch.manual_seed(SEED)
    rain = torch.rand(job.images, 3, job.height, job.width).to(job.device, memory_format=job.memory_format)
    _check_dtype(job)
    ceiling = Ceiling(job.device, DTYPES[job.dtype])
    emit(copy_gbs=ceiling.copy_rate() / 1e9)
    memory = PeakMemory()
    give_back_freed_memory()
    start = memory.now()
    net = _build(job)
    emit(parameters=sum(p.numel() for p in net.parameters()))

    if job.training:
        check_training_size('--sizes', net, job.height, job.width, job.recipe.multiple(net))
    work = _training_step(job, net, rain) if job.training else _restoring(job, net, rain)

    def run() -> float:
        """Return the seconds that one image or one step takes."""
        began = time.perf_counter()
        work()
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    if on_gpu:
        torch.cuda.synchronize()
    if job.compiled:
        try:
            compile_for_training(net) if job.training else compile_for_inference(net)
            emit(compile_s=run())
        except Exception as error:
            if _is_out_of_memory(error):
                raise
            traceback.print_exc()
            raise InputError(f'torch.compile failed: {_first_line(error)}') from error
        gc.collect()
        give_back_freed_memory()
        now = memory.now()
        if start is not None and now is not None:  # what the compiler leaves in the process is no part of the network
            start = max(start, now - _weights(net))
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        memory.reset()
    for _ in range(job.warmup):
        run()
    seconds, rates = [], []
    for _ in range(job.repeats):  # in turn, as the speed of a machine that others use too changes
        rates.append(ceiling.product_rate())
        seconds.append(run())
    milliseconds = np.array(seconds) * 1000
    median = float(np.median(milliseconds))
    emit(
        latency_ms=median, latency_p95_ms=float(np.percentile(milliseconds, 95)),
        images_per_second=1000 * job.images / median, gemm_gflops=float(np.median(rates)) / 1e9,
    )  # fmt: skip
    if on_gpu:
        emit(peak_memory_mib=(torch.cuda.max_memory_allocated() - ceiling.bytes) / MIB)
    elif start is not None and (peak := memory.peak()) is not None:
        emit(peak_memory_mib=(peak - start) / MIB)
    if not on_gpu and memory.source != 'VmHWM':
        emit(memory_note='peak memory by ru_maxrss' if memory.source else 'peak memory unknown on this system')
    if job.count:
        del net, work
        _count(job, rain, emit)


def _build(job: Job) -> nn.Module:
    """Build the network as ``ddsa derain`` does."""
    torch.manual_seed(SEED)
    net = build_network(check_network(job.network_g))
    if not job.plain and not job.compiled:
        accelerate(net)
    return lay_out(net.to(job.device), job.memory_format).train(job.training)


def _restoring(job: Job, net: nn.Module, rain: Tensor) -> Callable[[], object]:
    """Return a function that runs the network on one image, as often as it is called."""

    def work() -> None:
        with _autocast(job):
            restore(net, rain, job.recipe)

    return work


def _training_step(job: Job, net: nn.Module, rain: Tensor) -> Callable[[], object]:
    """Return a function that takes a step of AdamW on one batch, as often as it is called."""
    optimiser = build_optimiser('AdamW', net.parameters(), lr=LEARNING_RATE)
    amp = 'off' if DTYPES[job.dtype] is torch.float32 else job.dtype
    step = TrainingStep(net, optimiser, {'amp': amp}, torch.device(job.device))

    def losses(outputs: Tensor | Sequence[Tensor], target: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict(difference=(final_output(outputs) - target).abs().mean())

    return lambda: step.run(1, rain, rain, losses)


def _autocast(job: Job) -> contextlib.AbstractContextManager:
    dtype = DTYPES[job.dtype]
    return contextlib.nullcontext() if dtype is torch.float32 else torch.autocast(job.device, dtype)


def _weights(net: nn.Module) -> int:
    """Return the bytes of the network's weights."""
    return sum(t.numel() * t.element_size() for t in [*net.parameters(), *net.buffers()])


def _check_dtype(job: Job) -> None:
    """Check that autocast gives the wanted type here; this also loads the kernels' library before memory is measured.

    Raises:
        InputError: it does not: older releases warn and go on in float32.
    """
    layer = lay_out(nn.Conv2d(3, 8, 3).to(job.device), torch.channels_last)
    image = torch.rand(1, 3, 16, 16, device=job.device).to(memory_format=torch.channels_last)
    wanted = DTYPES[job.dtype]
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with _autocast(job):
                got = layer(image).dtype
    except RuntimeError as error:
        raise InputError(f'torch {torch.__version__} has no {job.dtype} on this {job.device}: {error}') from error
    if got != wanted:
        raise InputError(f'torch {torch.__version__} has no autocast to {job.dtype} on this {job.device}')


def tiles_of(net: nn.Module, recipe: Recipe, height: int, width: int) -> tuple[int, int, int]:
    """Return how ``restore`` runs a network on an image.

    Returns:
        H and W of what the network takes, and how often it runs.
    """
    fixed = getattr(net, 'fixed_size', None)
    if fixed:
        step = fixed - recipe.tile_overlap
        rows, columns = (len(tile_starts(max(side, fixed), fixed, step)) for side in (height, width))
        return fixed, fixed, rows * columns
    multiple = recipe.multiple(net)
    return height + -height % multiple, width + -width % multiple, 1


def _count(job: Job, rain: Tensor, emit: Emit) -> None:
    """Count on a network that was not compiled, and after memory was measured, as it is one more run."""
    net = _build(job).eval()
    height, width, tiles = tiles_of(net, job.recipe, job.height, job.width)
    image = torch.rand(1, 3, height, width).to(rain)
    try:
        operations = count_operations(net, image)
    except Exception as error:  # a network of the user's that cannot be traced keeps its times
        traceback.print_exc()
        emit(error=f'operations not counted: {_first_line(error)}')
        return
    emit(
        conv_macs=operations.weighed_macs * tiles,
        macs=operations.macs * tiles,
        flops=operations.flops * tiles,
        activations=operations.activations * tiles,
    )
    if tiles > 1:
        emit(size_note=f'{tiles} tiles of {height}x{width}')
    elif (height, width) != (job.height, job.width):
        emit(size_note=f'padded to {height}x{width}')
    if operations.uncounted:
        emit(count_note=f'operators not counted: {", ".join(operations.uncounted)}')


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in NO_MEMORY)


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f'{type(error).__name__}: {text[0]}' if text else type(error).__name__


# --- process -----------------------------------------------------------------------------------------------


def _end_with_starter(descriptor: int) -> None:
    """Wait until the other end of a pipe closes, and end this process."""
    while os.read(descriptor, 1):
        pass
    os._exit(1)


def _private_output() -> TextIO:
    """Standard output; whatever else prints there, such as a library, goes to standard error from now on."""
    private = os.fdopen(os.dup(1), 'w', encoding='utf-8')
    os.dup2(2, 1)
    return private


def main() -> int:
    out = _private_output()
    job = Job(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_starter, args=[sys.stdin.fileno()], daemon=True).start()

    def emit(**figures: Any) -> None:
        out.write(json.dumps(figures) + '\n')
        out.flush()

    try:
        measure(job, emit)
    except InputError as error:
        emit(error=str(error))
    except Exception as error:
        traceback.print_exc()
        emit(error=f'{"out of memory: " if _is_out_of_memory(error) else ""}{_first_line(error)}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
