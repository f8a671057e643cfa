"""``ddsa train --dry-run``: try a run for a few steps, and tell what the whole of it will take.

The run goes through BasicSR's pipeline like any other, only shorter and in a temporary folder: what is refused there
is refused here, and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from basicsr.utils.logger import initialized_logger
from torch.utils.data import DataLoader, Subset

from ddsa_arch.training import pipeline
from ddsa_arch.training.progress import Progress, Sample, rates

WARM_UP = 1  # steps
TIMED_STEPS = 5
LONGEST = 20.0  # seconds of timed steps, after which no other begins
QUICK = 5.0  # seconds; an image that took less is derained twice, as the first time is slow
NEVER = 10**9  # steps between two log lines, validations, states
MIB = 2**20


@dataclass(frozen=True)
class Estimate:
    """What a few steps tell about a whole run.

    Attributes:
        options: of the run, complete.
        parameters: of the network.
        images: in one step, of all processes.
        steps: seconds of each timed step.
        wait: share of them spent waiting for data.
        peak: bytes of memory: of the GPU if there is one, else of the process.
        validation: (name, number of images, seconds for one) of each set.
        weights: bytes of a weight file.
        state: bytes of a training state.
        saving: seconds to write both.
        warnings: what is allowed and yet looks wrong, one sentence each.
    """

    options: dict[str, Any]
    parameters: int
    images: int
    steps: Sequence[float]
    wait: float
    peak: int
    validation: Sequence[tuple[str, int, float]]
    weights: int
    state: int
    saving: float
    warnings: Sequence[str] = ()

    @property
    def step(self) -> float:
        """Seconds of a typical step."""
        return statistics.median(self.steps)

    @property
    def total_steps(self) -> int:
        return int(self.options['train']['total_iter'])

    @property
    def validations(self) -> int:
        """Times that the sets are derained; the last one is after the last step."""
        return -(-self.total_steps // self.options['val']['val_freq']) if self.validation else 0

    @property
    def checkpoints(self) -> int:
        return self.total_steps // self.options['logger']['save_checkpoint_freq']

    @property
    def seconds(self) -> float:
        """Of the whole run; the processes share the validation images."""
        world_size = self.options['world_size']
        once = sum(-(-count // world_size) * seconds for _, count, seconds in self.validation)
        return self.total_steps * self.step + self.validations * once + self.checkpoints * self.saving

    @property
    def disk(self) -> int:
        """Bytes of all states and weights at the end, with the newest and the best weights."""
        kept = min(self.checkpoints, self.options['logger'].get('keep_checkpoints') or self.checkpoints)
        scores = len(self.validation) * len(self.options['val'].get('metrics') or {})
        best = min(scores, self.checkpoints - kept)
        return kept * (self.weights + self.state) + (best + 1) * self.weights

    def text(self) -> str:
        """A report of a few lines."""
        memory = 'GPU' if self.options['num_gpu'] else 'this process'
        lines = [
            ('parameters', f'{self.parameters:,}'),
            ('images per step', f'{self.images}'),
            ('seconds per step', f'{self.step:.3g} (median of {len(self.steps)}), {self.wait:.0%} waiting for data'),
            ('peak memory', f'{self.peak / MIB:,.0f} MiB ({memory})'),
            *((f'validation, {name}', f'{s:.3g} s an image, {n} images') for name, n, s in self.validation),
            ('disk', f'{self.disk / MIB:,.0f} MiB: {self.weights / MIB:,.1f} a weight file, '
                     f'{self.state / MIB:,.1f} a state, {self.checkpoints} times'),
            ('whole run', f'{duration(self.seconds)}, {self.total_steps:,} steps and {self.validations} validations'),
        ]  # fmt: skip
        width = max(len(label) for label, _ in lines) + 1
        report = [f'{label + ":":{width}} {value}' for label, value in lines]
        return '\n'.join([*report, *(f'warning: {sentence}' for sentence in self.warnings)])


def dry_run(
    option_file: str | Path, *, launcher: str = 'none', debug: bool = False, force_yml: Sequence[str] = ()
) -> Estimate:
    """Train for a few steps and derain one image of each validation set, in a temporary folder.

    Begins with new weights even where the options name a state to continue from. Arguments as ``pipeline.run``.

    Raises:
        InputError: what a real run would refuse.
    """
    trial = Trial()
    with tempfile.TemporaryDirectory(prefix='ddsa_dry_run_') as root:
        pipeline.run(option_file, True, launcher=launcher, debug=debug, force_yml=force_yml, root=root, progress=trial)
    return trial.estimate()


class Trial(Progress):
    """Ends a training after a few steps, and measures them, one image of each validation set, and what is saved."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[Sample] = []  # one at the end of each step
        self.over = False
        self.validated: list[tuple[str, int, float]] = []

    @contextlib.contextmanager
    def running(self, options: dict[str, Any]) -> Iterator[None]:
        self.asked = copy.deepcopy(options)
        self.told, self.warnings[:] = list(self.warnings), []  # the report has them, not the log
        options['train']['total_iter'] = WARM_UP + TIMED_STEPS
        options['val'] |= {'val_freq': NEVER, 'pbar': False}
        options['logger'] |= {
            'print_freq': NEVER, 'save_checkpoint_freq': NEVER, 'progress': 'lines', 'strips': 0,
            'use_tb_logger': False, 'wandb': None,
        }  # fmt: skip
        options['path']['resume_state'] = None
        self.on_gpu = options['num_gpu'] > 0
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        with _quiet_logger(), super().running(options):
            yield

    def is_over(self) -> bool:
        return self.over

    def step_done(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()
        super().step_done()
        self.marks.append(self.sample())
        timed = len(self.marks) - WARM_UP
        slow = timed >= 1 and self.marks[-1].at - self.marks[WARM_UP - 1].at > LONGEST
        # several processes must agree on the number of steps, so they take all of them
        self.over = timed >= TIMED_STEPS or (slow and not self.options['dist'])

    def validation(self, dataloader: DataLoader, current_iter: int, tb_logger: Any, save_img: bool = False) -> None:
        first = DataLoader(_FirstImage(dataloader.dataset))
        for iteration in (1, 2):  # the model passes over a set that it has validated at the same iteration
            began = time.perf_counter()
            self.model.validation(first, iteration, tb_logger, save_img)
            seconds = time.perf_counter() - began
            if seconds > QUICK and not self.options['dist']:
                break
        dataset: Any = dataloader.dataset  # BasicSR's have options and a length
        self.validated.append((dataset.opt['name'], len(dataset), seconds))

    def save(self, epoch: int, current_iter: int) -> None:
        began = time.perf_counter()
        self.model.save(0, self.iteration)
        self.saving = time.perf_counter() - began
        paths = self.options['path']
        self.sizes = [
            sum(path.stat().st_size for path in Path(paths[part]).glob('*')) for part in ('models', 'training_states')
        ]

    def estimate(self) -> Estimate:
        """What was measured; after the run."""
        timed = self.marks[WARM_UP - 1 :]
        net = self.model.get_bare_model(self.model.net_g)
        return Estimate(
            options=self.asked,
            parameters=sum(p.numel() for p in net.parameters()),
            images=self.marks[-1].images // len(self.marks),
            steps=[after.at - before.at for before, after in itertools.pairwise(timed)],
            wait=rates(timed[0], timed[-1])[1],
            peak=torch.cuda.max_memory_allocated() if self.on_gpu else _peak_of_process(),
            validation=self.validated,
            weights=self.sizes[0],
            state=self.sizes[1],
            saving=self.saving,
            warnings=self.told,
        )


class _FirstImage(Subset):
    """The first image of a validation set, under the set's name."""

    def __init__(self, dataset: Any) -> None:  # BasicSR's have options
        super().__init__(dataset, [0])
        self.opt = dataset.opt


@contextlib.contextmanager
def _quiet_logger() -> Iterator[None]:
    """Let BasicSR log nothing but warnings."""
    logger = logging.getLogger('basicsr')
    level = logger.level
    logger.setLevel(logging.WARNING)
    initialized_logger['basicsr'] = True  # it sets its level only once
    try:
        yield
    finally:
        logger.setLevel(level)


def _peak_of_process() -> int:
    """The most memory that this process has held, in bytes."""
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == 'Darwin' else peak * 1024


def duration(seconds: float) -> str:
    """Such as ``2 days 3 hours``, ``3.4 hours`` or ``12 minutes``."""
    hours = seconds / 3600
    if hours >= 24:
        days, rest = divmod(round(hours), 24)
        return f'{days} day{"s" * (days > 1)} {rest} hours'
    return f'{hours:.1f} hours' if hours >= 1 else f'{max(1, round(seconds / 60))} minutes'
