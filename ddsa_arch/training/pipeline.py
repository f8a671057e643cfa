"""Call BasicSR's own train and test pipelines, with the few functions replaced that are broken or missing.

``run`` resolves the options, checks the run, and calls the pipeline inside ``_replaced``, which puts our functions
into ``basicsr.train`` and ``basicsr.test`` for the time of the call. Each replacement says why it is there.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import shlex
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypedDict

import basicsr.test
import basicsr.train
import torch
from basicsr.data import build_dataloader
from basicsr.data.data_sampler import EnlargedSampler
from basicsr.utils import set_random_seed
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.logger import initialized_logger
from torch.utils.data import DataLoader, Dataset

from ddsa_arch.data.keyed_sampler import KeyedSampler
from ddsa_arch.errors import InputError, clear_message
from ddsa_arch.files.atomic import write_text
from ddsa_arch.machine.process import TIMEOUT, detect_launcher, keep_freed_memory, process_group, torch_settings
from ddsa_arch.options.loading import load_options, to_yaml
from ddsa_arch.training.preflight import check_run, drop_missing_sets
from ddsa_arch.training.progress import Progress
from ddsa_arch.training.resume import resume_state

RESOLVED_NAME = 'options.yml'  # the plain options of a run, beside its log; stock BasicSR takes them too


def pipeline_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """The flags of BasicSR's own commands."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument('-opt', required=True, metavar='FILE', help='option file (YAML)')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm'], default='none', help='job launcher')
    parser.add_argument('--auto_resume', action='store_true', help='continue from the newest saved state')
    parser.add_argument('--root', metavar='DIR', help='gets experiments/ or results/ (default: the current directory)')
    parser.add_argument('--debug', action='store_true', help='log every step, validate and save every 8')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by old launchers; not used')
    parser.add_argument(
        '--force_yml', nargs='+', default=[], metavar='SECTION:KEY=VALUE', help='options that overrule the file'
    )
    return parser


class Flags(TypedDict, total=False):
    """What the verbs that run a pipeline hand on to ``run``."""

    launcher: str
    auto_resume: bool
    debug: bool
    force_yml: Sequence[str]
    root: str | Path | None
    progress: Progress | None
    allow_missing: bool


def run(
    option_file: str | Path,
    is_train: bool,
    *,
    launcher: str = 'none',
    auto_resume: bool = False,
    debug: bool = False,
    force_yml: Sequence[str] = (),
    root: str | Path | None = None,
    progress: Progress | None = None,
    allow_missing: bool = False,
) -> Path:
    """Run BasicSR's train or test pipeline.

    Args:
        option_file: YAML.
        is_train: train, or test.
        launcher: ``none``, ``pytorch`` or ``slurm``; torchrun is recognised by itself.
        auto_resume: continue from the newest saved state of the experiment of this name.
        debug: as BasicSR's flag.
        force_yml: see ``options.loading.force``.
        root: gets ``experiments/``, ``results/`` and ``tb_logger/``; the current directory by default.
        progress: watches a training; one of its own by default.
        allow_missing: test without the sets that are not on the disk.

    Returns:
        The folder of the experiment or of the results.

    Raises:
        InputError: what the user can mend; nothing is left behind that this call has made, unless it had already
            saved a state.
    """
    options = load_options(option_file, is_train, force_yml)
    root = Path(root or Path.cwd()).resolve()
    complete(options, root, is_train, auto_resume, debug)
    if not is_train:
        drop_missing_sets(options, allow_missing)
    launcher = detect_launcher(launcher)
    use_gpu = options['num_gpu'] > 0
    if options['keep_memory'] and not use_gpu:
        keep_freed_memory(of_any_size=is_train)
    distribution = options.get('dist_params', {})
    group = process_group(
        launcher, use_gpu and torch.cuda.is_available(), distribution.get('port'), distribution.get('timeout', TIMEOUT)
    )
    with group, torch_settings(options['tf32'], options['deterministic'], options.get('threads')):
        options['dist'] = launcher != 'none'
        options['rank'], options['world_size'] = get_dist_info()
        set_random_seed(options['manual_seed'] + options['rank'])
        sets = check_run(options, options['world_size'])
        folder = Path(options['path']['experiments_root' if is_train else 'results_root'])
        progress = progress or Progress()
        replaced = _replaced(options, sets, str(option_file), progress)
        with _nothing_half_made(folder, options['rank']), replaced, progress.running(options):
            pipeline = basicsr.train.train_pipeline if is_train else basicsr.test.test_pipeline
            pipeline(str(root))
    return folder


def complete(options: dict[str, Any], root: Path, is_train: bool, auto_resume: bool, debug: bool) -> None:
    """Add in place what BasicSR's parse_options adds to an option file: phases, flags and the run's paths."""
    options['is_train'], options['auto_resume'] = is_train, auto_resume
    if debug and not options['name'].startswith('debug'):
        options['name'] = 'debug_' + options['name']
    if options['num_gpu'] == 'auto':
        options['num_gpu'] = torch.cuda.device_count()
    for phase, dataset in options['datasets'].items():
        dataset['phase'] = phase.split('_')[0]
        dataset['scale'] = options['scale']
        dataset.setdefault('seed', options['manual_seed'])
        for key in ('dataroot_gt', 'dataroot_lq', 'dataroot_streaks', 'dataroot_real'):
            if dataset.get(key):
                dataset[key] = os.path.expanduser(dataset[key])
    paths = options['path']
    paths.setdefault('resume_state', None)
    for key in ('pretrain_network_g', 'resume_state'):
        if paths.get(key):
            paths[key] = os.path.expanduser(paths[key])
    folder = root / ('experiments' if is_train else 'results') / options['name']
    paths['experiments_root' if is_train else 'results_root'] = str(folder)
    paths['log'] = str(folder)
    paths['visualization'] = str(folder / 'visualization')
    if is_train:
        paths['models'] = str(folder / 'models')
        paths['training_states'] = str(folder / 'training_states')
        if 'debug' in options['name']:
            options['val']['val_freq'] = options['logger']['save_checkpoint_freq'] = 8
            options['logger']['print_freq'] = 1


@contextlib.contextmanager
def _nothing_half_made(folder: Path, rank: int) -> Iterator[None]:
    """Remove a folder that this run has made when the user's input ends it before anything is saved in it."""
    began = time.time()
    try:
        yield
    except InputError as error:
        made_here = folder.is_dir() and folder.stat().st_ctime >= began - 1
        kept = any(folder.glob('models/*.pth')) or (folder / 'summary.csv').exists() if made_here else True
        _reset_logger()  # closes the log file
        if made_here and not kept and rank == 0:
            shutil.rmtree(folder)
            shutil.rmtree(folder.parent.parent / 'tb_logger' / folder.name, ignore_errors=True)
            for parent in (folder.parent, folder.parent.parent / 'tb_logger'):
                with contextlib.suppress(OSError):
                    parent.rmdir()  # only if empty
        traceback.clear_frames(error.__traceback__)  # they hold the loader, whose processes end only with it
        raise InputError(clear_message(error)) from None


@contextlib.contextmanager
def _replaced(
    options: dict[str, Any], sets: dict[str, Dataset], option_file: str, progress: Progress
) -> Iterator[None]:
    """Put our functions into BasicSR's pipelines for the time of the block."""

    def parse_options(root_path: str, is_train: bool = True) -> tuple[dict[str, Any], argparse.Namespace]:
        """The options are resolved and checked already; BasicSR's reader ignores unknown keys and ``_base_``."""
        return options, argparse.Namespace(opt=option_file)

    def build_dataset(dataset_options: dict[str, Any]) -> Dataset:
        """The check before the run has built the data sets already."""
        return sets[dataset_options['name']]

    resumed: dict[str, Any] = {'reports': []}

    def load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
        """See ``resume_state``. There is no log file yet: what it reports is logged with the data sets."""
        resumed['state'] = resume_state(opt, resumed['reports'].append)
        return resumed['state']

    def create_train_val_dataloader(opt: dict[str, Any], logger: logging.Logger) -> tuple:
        """BasicSR's stops early, as it counts epochs with ceil while its loader drops the last batch; and a resumed
        run repeats the images of its epoch."""
        for report in resumed['reports']:
            logger.warning(report)
        # BasicSR turns it on; it picks by measured time
        torch.backends.cudnn.benchmark &= opt['cudnn_benchmark'] and not opt['deterministic']
        return _train_and_val_loaders(opt, sets, logger, resumed['state'])

    replacements: dict[ModuleType, dict[str, Callable]] = {
        basicsr.train: {
            'parse_options': parse_options,
            'create_train_val_dataloader': create_train_val_dataloader,
            'load_resume_state': load_resume_state,
            'copy_opt_file': lambda _, folder: write_resolved(options, option_file, folder),
            **progress.replacements(_Batches),
        },
        basicsr.test: {'parse_options': parse_options, 'build_dataset': build_dataset},
    }
    originals = {module: {name: getattr(module, name) for name in names} for module, names in replacements.items()}
    _reset_logger()
    for module, functions in replacements.items():
        for name, function in functions.items():
            setattr(module, name, function)
    try:
        yield
        if not options['is_train']:
            write_resolved(options, option_file, options['path']['results_root'])
    finally:
        for module, functions in originals.items():
            for name, function in functions.items():
                setattr(module, name, function)
        _reset_logger()


def write_resolved(options: dict[str, Any], option_file: str, folder: str | Path) -> None:
    """Write the plain options of a run beside its log, as BasicSR copies its option file."""
    if options['rank'] != 0:
        return
    added = ('is_train', 'auto_resume', 'dist', 'rank', 'world_size', 'root_path', 'missing_sets')
    given = ('pretrain_network_g', 'strict_load_g', 'param_key_g', 'resume_state', 'ignore_resume_networks')
    plain = {k: v for k, v in options.items() if k not in added}
    plain['path'] = {k: v for k, v in options['path'].items() if k in given}
    plain['datasets'] = {
        phase: {k: v for k, v in d.items() if k not in ('phase', 'scale')} for phase, d in options['datasets'].items()
    }
    header = f'# {time.asctime()}\n# {shlex.join(sys.argv)}\n# resolved from {option_file}\n\n'
    write_text(Path(folder) / RESOLVED_NAME, header + to_yaml(plain))


def _train_and_val_loaders(  # Any: sets of BasicSR have a length, which torch's Dataset does not promise
    opt: dict[str, Any], sets: dict[str, Any], logger: logging.Logger, state: dict[str, Any] | None
) -> tuple:
    train_loader, sampler, val_loaders = None, None, []
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
    assert train_loader is not None  # as the options of a training name a set to train on
    if state:
        state['val_loaders'] = val_loaders  # a state is saved before the validation of its iteration
    if state and isinstance(sampler, KeyedSampler):
        state['epoch'], done = divmod(state['iter'], len(train_loader))
        sampler.resume(state['epoch'], done * train_loader.batch_size)
    total_iters = int(opt['train']['total_iter'])
    total_epochs = math.ceil(total_iters / len(train_loader))
    logger.info(
        f'{len(train_loader.dataset)} images to train on, {len(train_loader)} steps in an epoch, '
        f'{total_iters} steps in {total_epochs} epochs'
    )
    return train_loader, sampler, val_loaders, total_epochs, total_iters


def _train_sampler(dataset: Any, ratio: int, opt: dict[str, Any]) -> KeyedSampler | EnlargedSampler:
    """Ours for data sets that take a sample's place in the run, BasicSR's for all others."""
    if getattr(dataset, 'takes_places', False):
        return KeyedSampler(len(dataset), opt['world_size'], opt['rank'], ratio, opt['manual_seed'])
    return EnlargedSampler(dataset, opt['world_size'], opt['rank'], ratio)


class _Batches:
    """BasicSR's CPUPrefetcher, less the loading processes that it starts for nothing before the first epoch."""

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def reset(self) -> None:
        self.batches = iter(self.loader)

    def next(self) -> dict[str, Any] | None:
        return next(self.batches, None)


def _reset_logger() -> None:
    """BasicSR configures its logger once for each process; every run gets a log file of its own here."""
    logger = logging.getLogger('basicsr')
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    initialized_logger.clear()
