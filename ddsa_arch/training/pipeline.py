"""Call BasicSR's own train and test pipelines.

``run`` resolves the options, checks the run, and calls the pipeline while ``replacements`` has put our functions in the
place of the few of BasicSR's that are broken or missing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

import basicsr.test
import basicsr.train
import torch
from basicsr.utils import set_random_seed
from basicsr.utils.dist_util import get_dist_info

from ddsa_arch.errors import InputError, clear_message
from ddsa_arch.files.atomic import full_disk, is_full, sweep
from ddsa_arch.files.locks import only_writer
from ddsa_arch.machine.process import TIMEOUT, detect_launcher, keep_freed_memory, process_group, torch_settings
from ddsa_arch.options.loading import load_options
from ddsa_arch.training.machine_checks import check_processes
from ddsa_arch.training.preflight import check_run
from ddsa_arch.training.progress import Progress
from ddsa_arch.training.replacements import Replacements, replaced, reset_logger
from ddsa_arch.training.resolved import write_resolved
from ddsa_arch.training.set_checks import drop_missing_sets


def pipeline_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """The flags of BasicSR's own commands."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument('-opt', required=True, metavar='FILE', help='option file, or the name of one of the package')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm'], default='none', help='job launcher')
    parser.add_argument(
        '--auto_resume', '--auto-resume', action='store_true', help='continue from the newest saved state'
    )
    parser.add_argument('--root', metavar='DIR', help='gets experiments/ or results/ (default: the current directory)')
    parser.add_argument('--debug', action='store_true', help='log every step, validate and save every 8')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by old launchers; not used')
    parser.add_argument(
        '--force_yml',
        '--force-yml',
        nargs='+',
        default=[],
        metavar='SECTION:KEY=VALUE',
        help='options that overrule the file; SECTION.KEY=VALUE too',
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
        option_file: YAML, or the name of one that comes with the package.
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
    if not is_train and any(phase.split('_')[0] == 'train' for phase in options['datasets']):
        raise InputError(
            f'{option_file}: datasets.train: this is the option file of a training; `ddsa train -opt FILE` takes it. '
            'A test has the sets test, test_2 ...'
        )
    root = _root(root)
    complete(options, root, is_train, auto_resume, debug)
    if not is_train:
        drop_missing_sets(options, allow_missing)
    check_processes(options)
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
        checked = check_run(options, options['world_size'])
        folder = Path(options['path']['experiments_root' if is_train else 'results_root'])
        progress = progress or Progress()
        progress.warnings = checked.warnings
        ours = Replacements(options, str(option_file), checked, progress)
        with _alone(folder, options['rank']), _nothing_half_made(folder, options['rank']):
            if options['rank'] == 0 and auto_resume:
                sweep(folder, deep=True)
            with replaced(ours), progress.running(options):
                pipeline = basicsr.train.train_pipeline if is_train else basicsr.test.test_pipeline
                pipeline(str(root))
        if not is_train:
            write_resolved(options, str(option_file), folder)
    return folder


def _root(given: str | Path | None) -> Path:
    """The folder of ``experiments`` and ``results``, which need not be there yet."""
    try:
        root = Path(given or Path.cwd()).resolve()
        nearest = next(path for path in (root, *root.parents) if path.exists())
    except (OSError, RuntimeError, ValueError) as error:  # such as links in a circle
        raise InputError(f'--root {given}: cannot be a folder: {error}') from error
    if not nearest.is_dir():
        raise InputError(f'--root {given}: {nearest} is a file, wanted a folder')
    return root


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
        for part in (dataset, *(dataset.get('sets') or {}).values()):
            for key in ('dataroot_gt', 'dataroot_lq', 'dataroot_streaks', 'dataroot_real'):
                if part.get(key):
                    part[key] = os.path.expanduser(part[key])
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


def _alone(folder: Path, rank: int) -> contextlib.AbstractContextManager[None]:
    """Keep another run out of the folder of this one; the first process does so for all."""
    remedy = "choose another name: --force_yml 'name=...'"
    return only_writer(folder, remedy) if rank == 0 else contextlib.nullcontext()


@contextlib.contextmanager
def _nothing_half_made(folder: Path, rank: int) -> Iterator[None]:
    """Remove a folder that this run has made when the user's input ends it before anything is saved in it."""
    began = time.time()
    try:
        yield
    except (InputError, OSError) as error:
        if not isinstance(error, InputError) and not is_full(error):
            raise
        made_here = folder.is_dir() and folder.stat().st_ctime >= began - 1
        kept = any(folder.glob('models/*.pth')) or (folder / 'summary.csv').exists() if made_here else True
        reset_logger()  # closes the log file
        if made_here and not kept and rank == 0:
            shutil.rmtree(folder)
            shutil.rmtree(folder.parent.parent / 'tb_logger' / folder.name, ignore_errors=True)
            for parent in (folder.parent, folder.parent.parent / 'tb_logger'):
                with contextlib.suppress(OSError):
                    parent.rmdir()  # only if empty
        traceback.clear_frames(error.__traceback__)  # they hold the loader, whose processes end only with it
        raise InputError(full_disk(folder) if is_full(error) else clear_message(error)) from None
