"""What is replaced in BasicSR's pipelines while a run goes through them, each with its reason."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import basicsr.test
import basicsr.train
import torch
from basicsr.data.prefetch_dataloader import CUDAPrefetcher
from basicsr.models import build_model
from basicsr.utils import MessageLogger, get_root_logger
from basicsr.utils.logger import initialized_logger
from torch.utils.data import DataLoader, Dataset

from ddsa_arch.training.loaders import Batches, Loaders, train_and_val_loaders
from ddsa_arch.training.preflight import Checked
from ddsa_arch.training.progress import Prefetcher, Progress
from ddsa_arch.training.resolved import write_resolved
from ddsa_arch.training.resume import resume_state

IN_TRAIN = (
    'parse_options', 'load_resume_state', 'copy_opt_file', 'create_train_val_dataloader', 'build_model',
    'MessageLogger', 'CPUPrefetcher', 'CUDAPrefetcher', 'get_root_logger',
)  # fmt: skip
IN_TEST = ('parse_options', 'build_dataset', 'get_root_logger')


def _is_true_here(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith('Multiple validation datasets are *only* supported')


class Replacements:
    """The functions that take the place of BasicSR's, under BasicSR's names, for one run.

    Args:
        options: of the run, complete.
        option_file: where they were read.
        checked: what the check before the run has built.
        progress: watches a training.
    """

    def __init__(self, options: dict[str, Any], option_file: str, checked: Checked, progress: Progress) -> None:
        self.options, self.option_file = options, option_file
        self.checked, self.progress = checked, progress
        self.state: dict[str, Any] | None = None  # to continue from
        self.reports: list[str] = []  # of states that were passed over
        self.validation: list[DataLoader] = []

    def parse_options(self, root_path: str, is_train: bool = True) -> tuple[dict[str, Any], argparse.Namespace]:
        """Give the options, which are resolved and checked: BasicSR's reader ignores unknown keys and ``_base_``."""
        return self.options, argparse.Namespace(opt=self.option_file)

    def get_root_logger(
        self, logger_name: str = 'basicsr', log_level: int = logging.INFO, log_file: str | None = None
    ) -> logging.Logger:
        """Let a log that cannot be written, as on a full disk, end the run; logging would print a traceback a line.

        What BasicSR says of several validation sets at each of them is left out: it holds for models of its own.
        """
        logger = get_root_logger(logger_name, log_level, log_file)
        if _is_true_here not in logger.filters:
            logger.addFilter(_is_true_here)
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler):
                setattr(handler, 'handleError', _raise)  # noqa: B010 (mypy takes no other method)
        return logger

    def build_dataset(self, dataset_options: dict[str, Any]) -> Dataset:
        """Give a data set that the check before the run has built."""
        while self.checked.warnings:
            get_root_logger().warning(self.checked.warnings.pop(0))
        return self.checked.sets[dataset_options['name']]

    def load_resume_state(self, opt: dict[str, Any]) -> dict[str, Any] | None:
        """Find the newest whole state, see ``resume_state``. There is no log file yet to tell of those passed over."""
        self.state = resume_state(opt, self.checked.net, self.reports.append)
        return self.state

    def copy_opt_file(self, option_file: str, folder: str) -> None:
        """Write the resolved options: a copy of the option file alone would lack what it inherits."""
        write_resolved(self.options, self.option_file, folder)

    def create_train_val_dataloader(self, opt: dict[str, Any], logger: logging.Logger) -> Loaders:
        """Count epochs rightly and continue within one.

        BasicSR's stops early, as it counts epochs with ceil while its loader drops the last batch; and a resumed run
        repeats the images of its epoch.
        """
        for report in (*self.reports, *self.checked.warnings):
            logger.warning(report)
        total = int(opt['train']['total_iter'])
        if self.state and self.state['iter'] >= total:
            logger.info(f'already finished: {self.state["iter"]} of {total} steps; raise train.total_iter to go on')
        # BasicSR turns it on; it picks by measured time
        torch.backends.cudnn.benchmark &= opt['cudnn_benchmark'] and not opt['deterministic']
        loaders = train_and_val_loaders(opt, self.checked.sets, logger, self.state)
        self.validation = loaders.validation
        return loaders

    def build_model(self, opt: dict[str, Any]) -> Any:
        """Let the progress see when the model validates and saves."""
        return self.progress.watched_model(build_model(opt))

    def MessageLogger(self, opt: dict[str, Any], start_iter: int, tb_logger: Any) -> MessageLogger:
        """Make up for a validation that the earlier run did not reach, then start the progress.

        BasicSR saves a state before it validates, and a run may end in between.
        """
        if self.state and start_iter % opt['val']['val_freq'] == 0:
            for loader in self.validation:
                self.progress.validation(loader, start_iter, tb_logger, opt['val']['save_img'])
        return self.progress.messages(opt, start_iter, tb_logger)

    def CPUPrefetcher(self, loader: DataLoader) -> Prefetcher:
        """Start no loading processes before the first epoch, as BasicSR's does for nothing."""
        return self.progress.watched(Batches(loader))

    def CUDAPrefetcher(self, loader: DataLoader, opt: dict[str, Any]) -> Prefetcher:
        """BasicSR's, watched."""
        return self.progress.watched(CUDAPrefetcher(loader, opt))


@contextlib.contextmanager
def replaced(ours: Replacements) -> Iterator[None]:
    """Put our functions into BasicSR's pipelines for the time of the block."""
    places = [(basicsr.train, name) for name in IN_TRAIN] + [(basicsr.test, name) for name in IN_TEST]
    originals = [(module, name, getattr(module, name)) for module, name in places]
    reset_logger()
    for module, name in places:
        setattr(module, name, getattr(ours, name))
    try:
        yield
    finally:
        for module, name, function in originals:
            setattr(module, name, function)
        reset_logger()


def _raise(record: logging.LogRecord) -> None:
    raise  # what was raised while the record was written


def reset_logger() -> None:
    """BasicSR configures its logger once for each process; every run gets a log file of its own here."""
    logger = logging.getLogger('basicsr')
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        with contextlib.suppress(OSError):  # of a full disk, on which the last lines stay behind
            handler.close()
    initialized_logger.clear()
