"""What a training tells while it runs: a live bar or plain lines, and ``training.csv``.

BasicSR's train pipeline has no hooks. A ``Progress`` wraps the model, the prefetcher and the message logger that the
pipeline works with, and measures speed and waiting from how they are called.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from basicsr.utils import MessageLogger
from basicsr.utils.dist_util import master_only
from torch.utils.data import DataLoader
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ddsa_arch.files.growing_table import GrowingTable
from ddsa_arch.models.kept_images import drop_later_strips

TABLE_NAME = 'training.csv'
TABLE_FIGURES = ('iteration', 'epoch', 'lr', 'images_per_second', 'data_wait')  # its columns, beside the losses
NOT_LOSSES = ('epoch', 'iter', 'lrs', 'time', 'data_time')  # of what BasicSR logs
SHOW_EVERY = 1.0  # seconds; each time waits for the GPU, as it reads the losses
RECENT = 30  # samples, one each time the bar is shown: its speed is that of the last half minute
BAR_FORMAT = '{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}'


class Sample(NamedTuple):
    """What was counted up to a moment; times in seconds, images of all processes."""

    at: float
    paused: float  # spent on validation and saving
    waited: float  # spent waiting for data
    images: int


class Best(NamedTuple):
    """The best score so far of a metric."""

    metric: str
    value: float


class Prefetcher(Protocol):
    """As BasicSR's pipeline calls it."""

    def reset(self) -> None: ...

    def next(self) -> dict[str, Any] | None: ...


def rates(first: Sample, last: Sample) -> tuple[float, float]:
    """Images per second of training, and the share of that time spent waiting for data; NaN if no time went by."""
    seconds = last.at - first.at - (last.paused - first.paused)
    if seconds <= 0:
        return math.nan, math.nan
    return (last.images - first.images) / seconds, (last.waited - first.waited) / seconds


def figures_text(speed: float, wait: float, best: Best | None) -> str:
    """Such as ``best psnr 27.56, 41.2 images/s, 3% waiting for data``."""
    score = f'best {best.metric} {best.value:.2f}, ' if best else ''
    return f'{score}{speed:.3g} images/s, {wait:.0%} waiting for data'


def bar_text(loss: float, seconds_left: float | None, speed: float, wait: float, best: Best | None, lr: float) -> str:
    """What stands behind the bar; a narrow terminal cuts off its end."""
    left = '?' if seconds_left is None else datetime.timedelta(seconds=round(seconds_left))
    return f'loss {loss:.4f}, {left} left, {figures_text(speed, wait, best)}, lr {lr:.1e}'


class Progress:
    """Watches one training.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.model: Any = None  # BasicSR's, once the pipeline has built it
        self.paused = self.waited = 0.0
        self.images = 0
        self.iteration = 0  # steps done, from the start of the training
        self.in_step = False
        self.first_step: tuple[float, int] | None = None  # when this run's first step ended, and its number
        self.bar: tqdm | None = None
        self.shown = -math.inf
        self.warnings: list[str] = []  # of the check before the run, which the log gets

    @contextlib.contextmanager
    def running(self, options: dict[str, Any]) -> Iterator[None]:
        """Around BasicSR's pipeline; ``options`` are those of the run."""
        self.options = options
        with contextlib.ExitStack() as self.stack:
            yield

    # --- what BasicSR's pipeline works with --------------------------------------------------------------------

    def watched_model(self, model: Any) -> Any:
        """The model, with its validations and checkpoints timed."""
        self.model = model
        return _WatchedModel(model, self)

    def watched(self, prefetcher: Prefetcher) -> Prefetcher:
        """The prefetcher, with its steps and waits counted."""
        return _Watched(prefetcher, self)

    def messages(self, options: dict[str, Any], start_iter: int, tb_logger: Any) -> MessageLogger:
        """BasicSR's message logger with our figures; the training starts now, behind ``start_iter`` steps."""
        messages = _Messages(self, options, start_iter, tb_logger)
        self.start(start_iter)
        return messages

    def validation(self, dataloader: DataLoader, current_iter: int, tb_logger: Any, save_img: bool = False) -> None:
        with self._pause():
            self.model.validation(dataloader, current_iter, tb_logger, save_img)

    def save(self, epoch: int, current_iter: int) -> None:
        with self._pause():
            self.model.save(epoch, current_iter)

    def start(self, iteration: int) -> None:
        """Training begins after this iteration, 0 for none; what earlier runs wrote about later ones is dropped."""
        self.iteration = iteration
        self.logged = self.sample()
        self.recent = deque([self.logged], maxlen=RECENT)
        if self.options['rank'] != 0:
            return
        folder = Path(self.options['path']['experiments_root'])
        self.table = GrowingTable(folder / TABLE_NAME, 'iteration', iteration)
        drop_later_strips(folder, iteration)
        wanted = self.options['logger']['progress']
        if wanted == 'bar' or (wanted == 'auto' and sys.stderr.isatty()):
            total = int(self.options['train']['total_iter'])
            self.bar = tqdm(total=total, initial=iteration, bar_format=BAR_FORMAT, dynamic_ncols=True)
            self.stack.push(partial(self._close, self.bar))
            self.stack.enter_context(logging_redirect_tqdm([logging.getLogger('basicsr')]))

    def is_over(self) -> bool:
        """Tell whether the training ends before its last step."""
        return bool(getattr(self.model, 'ends_early', False))

    def new_epoch(self, prefetcher: Prefetcher) -> None:
        if self.is_over():
            return
        with self._wait():
            prefetcher.reset()

    def next_batch(self, prefetcher: Prefetcher) -> dict[str, Any] | None:
        """Called when a step, if any, is done and another shall begin."""
        if self.in_step:
            self.step_done()
        if self.is_over():
            self.in_step = False
            return None
        with self._wait():
            batch = prefetcher.next()
        self.in_step = batch is not None and self.iteration < int(self.options['train']['total_iter'])
        if self.in_step and batch is not None:
            self.images += len(batch['lq']) * self.options['world_size']
        return batch

    def step_done(self) -> None:
        self.iteration += 1
        now = self.clock()
        if self.first_step is None:
            self.first_step = now, self.iteration
        if self.bar is not None and now >= self.shown + SHOW_EVERY:
            self.shown = now
            self._show(self.bar)

    def log(self, log_vars: Mapping[str, Any]) -> str:
        """Write what BasicSR is about to log into the table; returns what its line should say in addition."""
        now = self.sample()
        speed, wait = rates(self.logged, now)
        self.logged = now
        self.table.append({
            'iteration': log_vars['iter'],
            'epoch': log_vars['epoch'],
            **{name: f'{value:.6g}' for name, value in log_vars.items() if name not in NOT_LOSSES},
            'lr': f'{log_vars["lrs"][0]:.6g}',
            'images_per_second': f'{speed:.4g}',
            'data_wait': f'{wait:.3f}',
        })  # fmt: skip
        return figures_text(speed, wait, self.best())

    # --- what is measured -------------------------------------------------------------------------------------

    def sample(self) -> Sample:
        return Sample(self.clock(), self.paused, self.waited, self.images)

    def seconds_left(self) -> float | None:
        """From the pace of this run behind its first step, with validations; None before there is one."""
        if self.first_step is None or self.iteration == self.first_step[1]:
            return None
        since, first = self.first_step
        pace = (self.clock() - since) / (self.iteration - first)
        return pace * (int(self.options['train']['total_iter']) - self.iteration)

    def best(self) -> Best | None:
        """The best PSNR of the first validation set."""
        names = [d['name'] for phase, d in self.options['datasets'].items() if phase.split('_')[0] == 'val']
        records = getattr(self.model, 'best_metric_results', {}).get(names[0] if names else None, {})
        for metric, options in (self.options['val'].get('metrics') or {}).items():
            if 'psnr' in options['type'] and metric in records and math.isfinite(records[metric]['val']):
                return Best(metric, records[metric]['val'])
        return None

    @contextlib.contextmanager
    def _pause(self) -> Iterator[None]:
        began = self.clock()
        yield
        self.paused += self.clock() - began

    @contextlib.contextmanager
    def _wait(self) -> Iterator[None]:
        began = self.clock()
        yield
        self.waited += self.clock() - began

    # --- the bar ----------------------------------------------------------------------------------------------

    def _show(self, bar: tqdm) -> None:
        loss = sum(float(value) for value in getattr(self.model, 'losses', {}).values())  # waits for the device
        self.recent.append(self.sample())
        speed, wait = rates(self.recent[0], self.recent[-1])
        lr = self.model.get_current_learning_rate()[0]
        bar.n = self.iteration
        bar.set_postfix_str(bar_text(loss, self.seconds_left(), speed, wait, self.best(), lr))

    def _close(self, bar: tqdm, error: type[BaseException] | None, *_: object) -> None:
        if self.first_step is not None and error is None:  # after an error the device may not answer
            self._show(bar)
        bar.close()


class _WatchedModel:
    """A model that is asked through a ``Progress`` to validate and to save."""

    def __init__(self, model: Any, progress: Progress) -> None:
        self._model, self.validation, self.save = model, progress.validation, progress.save

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class _Watched:
    """A prefetcher whose steps and waits are counted."""

    def __init__(self, prefetcher: Prefetcher, progress: Progress) -> None:
        self.prefetcher, self.progress = prefetcher, progress

    def reset(self) -> None:
        self.progress.new_epoch(self.prefetcher)

    def next(self) -> dict[str, Any] | None:
        return self.progress.next_batch(self.prefetcher)


class _Messages(MessageLogger):
    """BasicSR's line and TensorBoard values, with our figures at the end of the line."""

    def __init__(self, progress: Progress, options: dict[str, Any], start_iter: int, tb_logger: Any) -> None:
        super().__init__(options, start_iter, tb_logger)
        self.max_iters += 1  # BasicSR counts the steps that are left one too low, and ends below zero
        self.progress = progress
        self.logger: _WithFigures = _WithFigures(self.logger, {})

    @master_only
    def __call__(self, log_vars: dict[str, Any]) -> None:
        self.logger.figures = self.progress.log(log_vars)
        super().__call__(log_vars)


class _WithFigures(logging.LoggerAdapter):
    figures = ''

    def process(self, msg: str, kwargs: Any) -> tuple[str, Any]:
        return f'{msg}[{self.figures}]', kwargs
