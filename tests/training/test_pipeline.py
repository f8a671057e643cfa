"""Training and testing through BasicSR's own pipelines."""

import copy
import errno
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from helpers import free_port, rows, same, variables

from ddsa_arch.errors import InputError
from ddsa_arch.fast import is_accelerated
from ddsa_arch.files.images import images_by_stem, read_image, write_image
from ddsa_arch.models import validated_model
from ddsa_arch.models.training_step import TrainingStep
from ddsa_arch.ops.quality import psnr_y
from ddsa_arch.runners.cli import main
from ddsa_arch.runners.test import test as run_test
from ddsa_arch.runners.train import train
from ddsa_arch.training.pipeline import run


def weights(folder, name='net_g_latest.pth', key='params'):
    return torch.load(folder / 'models' / name, weights_only=True)[key]


@pytest.mark.core
def test_training_leaves_weights_states_scores_options_and_a_log(trained):
    folder = trained
    assert sorted(p.name for p in (folder / 'models').iterdir()) == ['net_g_4.pth', 'net_g_8.pth', 'net_g_latest.pth']
    assert sorted(p.name for p in (folder / 'training_states').iterdir()) == ['4.state', '8.state']
    assert [r['iteration'] for r in rows(folder / 'validation' / 'summary.csv')] == ['4', '8']
    assert len(rows(folder / 'validation' / 'held_out.csv')) == 10
    log = next(folder.glob('train_run_*.log')).read_text(encoding='utf-8')
    assert 'iter:       8' in log
    assert 'psnr' in log
    assert same(weights(folder, 'net_g_8.pth'), weights(folder))
    assert not same(weights(folder), weights(folder, key='params_ema'))
    network = torch.load(folder / 'models' / 'net_g_latest.pth', weights_only=True)['network_g']
    assert (network['type'], network['dim']) == ('DDSANet', 8)


def test_several_validation_sets_are_scored_and_nothing_untrue_is_said_of_them(write_options, pairs):
    second = {'name': 'second', 'dataroot_lq': str(pairs / 'input'), 'dataroot_gt': str(pairs / 'target')}
    folder = train(write_options('train', **{'datasets:val_2': second, 'train:total_iter': 4, 'val:val_freq': 4}))
    assert [r['set'] for r in rows(folder / 'validation' / 'summary.csv')] == ['held_out', 'second', 'Average']
    assert 'Multiple validation datasets' not in next(folder.glob('*.log')).read_text(encoding='utf-8')


def test_training_lowers_the_loss(write_options):
    options = write_options('train', **{'train:total_iter': 60, 'logger:save_checkpoint_freq': 100, 'val:val_freq': 100,
                                        'train:scheduler': None, 'train:ema_decay': 0})  # fmt: skip
    log = next(train(options).glob('*.log')).read_text(encoding='utf-8')
    losses = [float(line.split('l_pix: ')[1].split()[0]) for line in log.splitlines() if 'l_pix: ' in line]
    assert len(losses) == 30
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


@pytest.mark.parametrize('kind', ['lmdb', pytest.param('folder', marks=pytest.mark.slow)])
def test_the_number_of_loading_processes_changes_no_weight(kind, write_options, pairs):
    """Identical weights after 9 iterations, three epochs."""
    roots = ('input.lmdb', 'target.lmdb') if kind == 'lmdb' else ('input', 'target')
    trained = []
    for workers in (0, 2):
        changes = {f'datasets:train:dataroot_{s}': str(pairs / r) for s, r in zip(('lq', 'gt'), roots, strict=True)}
        changes |= {'name': f'workers{workers}', 'datasets:train:num_worker_per_gpu': workers, 'train:total_iter': 9,
                    'val:val_freq': 100, 'logger:save_checkpoint_freq': 100}  # fmt: skip
        trained.append(weights(train(write_options('train', **changes))))
    assert all(same(trained[0], other) for other in trained[1:])


@pytest.mark.parametrize('saved_at', [5, 6])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(saved_at, write_options):
    """3 steps in an epoch: the state lies within an epoch, or between two."""
    changes = {'train:total_iter': 9, 'logger:save_checkpoint_freq': saved_at, 'val:val_freq': 100}
    whole = train(write_options('train', name='whole', **changes))
    train(write_options('train', name='halted', **changes | {'train:total_iter': saved_at}))
    resumed = train(write_options('train', name='halted', **changes), auto_resume=True)
    for key in ('params', 'params_ema'):
        assert same(weights(resumed, key=key), weights(whole, key=key))


def test_the_stock_basicsr_command_takes_the_resolved_options(trained, workplace):
    """The experiment's options.yml, through BasicSR's own parse_options and pipeline, once ddsa_arch is imported."""
    folder = trained
    resolved = yaml.safe_load((folder / 'options.yml').read_text(encoding='utf-8'))
    assert '_base_' not in resolved
    (workplace / 'stock').mkdir()
    code = 'import ddsa_arch, os; from basicsr.train import train_pipeline; train_pipeline(os.getcwd())'
    command = [sys.executable, '-c', code, '-opt', str(folder / 'options.yml')]
    done = subprocess.run(command, cwd=workplace / 'stock', capture_output=True, text=True, env=variables())
    assert done.returncode == 0, done.stderr[-2000:]
    assert (workplace / 'stock' / 'experiments' / 'run' / 'models' / 'net_g_8.pth').is_file()


def test_data_sets_of_basicsr_train_too(write_options, pairs):
    """Its PairedImageDataset takes keys of its own and plain indices."""
    stock = {'name': 'stock', 'type': 'PairedImageDataset', 'io_backend': {'type': 'disk'}, 'gt_size': 32,
             'dataroot_lq': str(pairs / 'input'), 'dataroot_gt': str(pairs / 'target'), 'use_hflip': True,
             'use_rot': False, 'batch_size_per_gpu': 5}  # fmt: skip
    folder = train(write_options('train', **{'datasets:train': stock}))
    assert (folder / 'models' / 'net_g_8.pth').is_file()


def test_rendered_rain_trains(write_options, pairs):
    rendered = {'name': 'r', 'type': 'RenderedRainDataset', 'dataroot_gt': str(pairs / 'target.lmdb'), 'gt_size': 32,
                'style': 'heavy', 'batch_size_per_gpu': 2}  # fmt: skip
    folder = train(write_options('train', **{'datasets:train': rendered}))
    assert (folder / 'models' / 'net_g_8.pth').is_file()


def test_excluded_images_are_not_trained_on(write_options, workplace):
    """10 pairs less 4 in batches of 3 are 2 steps an epoch; the path is relative to where the command runs."""
    (workplace / 'lists').mkdir()
    keys = [f'tile{i}_0' for i in (1, 4, 5, 9)]
    (workplace / 'lists' / 'leaked.txt').write_text('\n'.join(keys), encoding='utf-8')
    options = write_options('train', **{'datasets:train:exclude_keys': 'lists/leaked.txt'})
    log = next(train(options).glob('*.log')).read_text(encoding='utf-8')
    assert re.findall(r'\[epoch: +(\d+), iter: +(\d+)', log) == [('0', '2'), ('1', '4'), ('2', '6'), ('3', '8')]


@pytest.mark.core
def test_testing_writes_scores_images_and_the_average(write_options, pairs, trained):
    second = {'name': 'second', 'dataroot_lq': str(pairs / 'input'), 'dataroot_gt': str(pairs / 'target')}
    options = write_options('test', **{
        'datasets:test_2': second, 'val:save_img': True, 'path:pretrain_network_g': str(trained / 'models/net_g_8.pth')
    })  # fmt: skip
    folder = run_test(options)
    summary = rows(folder / 'summary.csv')
    assert [r['set'] for r in summary] == ['first', 'second', 'Average']
    assert float(summary[2]['psnr']) == pytest.approx((float(summary[0]['psnr']) + float(summary[1]['psnr'])) / 2)
    per_image = {r['image']: float(r['psnr']) for r in rows(folder / 'second.csv')}
    for stem, path in images_by_stem(folder / 'visualization' / 'second').items():
        assert psnr_y(read_image(path), read_image(pairs / 'target' / f'{stem}.png')) == per_image[stem]
    assert len(json.loads((folder / 'results.json').read_text(encoding='utf-8'))['sets']['first']['images']) == 10


def test_any_image_size_is_tested_and_small_ones_are_noted(write_options, workplace, rng):
    for name, size in {'dot': (1, 1), 'line': (3, 40), 'odd': (37, 51)}.items():
        for side in ('input', 'target'):
            write_image(workplace / side / f'{name}.png', rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    options = write_options('test', **{'datasets:test_1:dataroot_lq': 'input', 'datasets:test_1:dataroot_gt': 'target',
                                       'val:save_img': True})  # fmt: skip
    folder = run_test(options)
    scored = {r['image']: r for r in rows(folder / 'first.csv')}
    assert 'at least 11 x 11' in scored['dot']['note']
    assert scored['odd']['note'] == ''
    assert float(rows(folder / 'summary.csv')[0]['ssim']) == pytest.approx(float(scored['odd']['ssim']))
    assert read_image(folder / 'visualization' / 'first' / 'line.png').shape == (3, 40, 3)


def test_the_threads_asked_for_compute(write_options, pairs):
    before = torch.get_num_threads()
    for asked in (before + 1, None):
        options = write_options('test', name=f'threads_{asked}', **({} if asked is None else {'threads': asked}))
        protocol = json.loads((run_test(options) / 'results.json').read_text(encoding='utf-8'))['protocol']
        assert protocol['threads'] == (asked or before)
        assert torch.get_num_threads() == before


@pytest.mark.slow
def test_compiled_blocks_train_like_those_that_are_not(write_options):
    trained = []
    for name, compiled in (('plain', False), ('compiled', True)):
        changes = {'train:compile': compiled, 'train:total_iter': 4, 'val:val_freq': 100}
        trained.append(weights(train(write_options('train', name=name, **changes))))
    assert trained[0].keys() == trained[1].keys()
    for key, value in trained[0].items():
        assert torch.allclose(value, trained[1][key], atol=2e-4), key


@pytest.mark.parametrize(
    ('changes', 'trained_fast', 'validated_fast'),
    [
        ({}, True, True),
        ({'fast': False}, False, False),
        ({'train:ema_decay': 0, 'train:checkpoint_blocks': True}, True, True),
        ({'train:ema_decay': 0, 'train:compile': True}, False, True),
    ],
    ids=['by default', 'turned off', 'checkpointed', 'compiled'],
)
def test_networks_run_fast_in_training_and_validation(
    changes, trained_fast, validated_fast, write_options, monkeypatch
):
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda self, **_: None)
    validated, trained = [], []
    restore, step = validated_model.restore, TrainingStep.run

    def watched(net, *arguments):
        validated.append((is_accelerated(net), any('forward' in module.__dict__ for module in net.modules())))
        return restore(net, *arguments)

    def watched_step(self, *arguments):
        trained.append(is_accelerated(self.net))
        return step(self, *arguments)

    monkeypatch.setattr(validated_model, 'restore', watched)
    monkeypatch.setattr(TrainingStep, 'run', watched_step)
    folder = train(write_options('train', **changes))
    assert set(validated) == {(validated_fast, False)}
    assert set(trained) == {trained_fast}
    scored = [float(row['psnr']) for row in rows(folder / 'validation' / 'summary.csv')]
    assert scored[0] != scored[-1]  # what is validated has the weights of its moment


def test_averaged_weights_follow_their_definition_and_copy_buffers():
    from ddsa_arch.models.derain_model import DerainModel

    model = DerainModel.__new__(DerainModel)
    model.net_g = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    model.net_g_ema = copy.deepcopy(model.net_g)
    before = [p.clone() for p in model.net_g_ema.parameters()]
    for parameter in model.net_g.parameters():
        parameter.data += 1
    model.net_g[1].running_mean += 5
    model.model_ema(0.9)
    for old, new, current in zip(before, model.net_g_ema.parameters(), model.net_g.parameters(), strict=True):
        assert torch.allclose(new, 0.9 * old + 0.1 * current)
    assert torch.equal(model.net_g_ema[1].running_mean, model.net_g[1].running_mean)


# --- what a user can do wrong --------------------------------------------------------------------------------


def broken_pairs(workplace, rng):
    for side in ('input', 'target'):
        for i in range(6):
            write_image(workplace / side / f'{i}.png', rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    return {f'datasets:train:dataroot_{s}': str(workplace / d) for s, d in (('lq', 'input'), ('gt', 'target'))}


def refused(argv, capsys, workplace, *words):
    """One clear message, exit code 2, and no folder of the run."""
    assert main(argv) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith('error: ')
    for word in words:
        assert word in message
    assert not (workplace / 'experiments').exists()
    assert not (workplace / 'results').exists()
    assert not (workplace / 'tb_logger').exists()


def test_a_missing_data_root_is_named(write_options, workplace, capsys):
    options = write_options('train', **{'datasets:train:dataroot_lq': 'nowhere.lmdb'})
    refused(['train', '-opt', str(options)], capsys, workplace, 'datasets.train.dataroot_lq', 'nowhere.lmdb')


def test_a_missing_list_of_excluded_images_is_named(write_options, workplace, capsys):
    options = write_options('train', **{'datasets:train:exclude_keys': 'lists/leaked.txt'})
    words = 'datasets.train.exclude_keys', 'lists/leaked.txt', 'no file'
    refused(['train', '-opt', str(options)], capsys, workplace, *words)
    assert [path.name for path in workplace.iterdir()] == [options.name]


@pytest.mark.parametrize('workers', [0, 1])
def test_a_truncated_image_is_named(workers, write_options, workplace, capsys, rng):
    changes = broken_pairs(workplace, rng)
    path = workplace / 'input' / '4.png'
    path.write_bytes(path.read_bytes()[:-100])
    options = write_options('train', **changes, **{'datasets:train:num_worker_per_gpu': workers})
    refused(['train', '-opt', str(options)], capsys, workplace, '4.png', 'truncated')


def test_a_batch_larger_than_the_data_set_is_refused(write_options, workplace, capsys):
    options = write_options('train', **{'datasets:train:batch_size_per_gpu': 11})
    refused(['train', '-opt', str(options)], capsys, workplace, 'one batch of 11', 'dataset_enlarge_ratio: 2')


def test_a_missing_weight_file_is_named(write_options, workplace, capsys):
    options = write_options('test', **{'path:pretrain_network_g': 'none.pth'})
    refused(['test', '-opt', str(options)], capsys, workplace, 'path.pretrain_network_g', 'none.pth')


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_a_gpu_that_is_not_there_is_named(write_options, workplace, capsys):
    refused(['train', '-opt', str(write_options('train', num_gpu=4))], capsys, workplace, 'num_gpu: 4', 'num_gpu: 0')


def test_weights_of_another_network_are_refused(write_options, trained, workplace, capsys):
    folder = trained
    options = write_options('test', **{
        'path:pretrain_network_g': str(folder / 'models/net_g_8.pth'), 'network_g:dim': 16
    })  # fmt: skip
    assert main(['test', '-opt', str(options)]) == 2
    assert 'does not fit DDSANet' in capsys.readouterr().err
    assert not (workplace / 'results').exists()


def test_a_failed_run_keeps_what_an_earlier_one_saved(write_options, trained, workplace, capsys, rng):
    folder = trained
    changes = broken_pairs(workplace, rng)
    path = workplace / 'input' / '4.png'
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match='truncated'):
        run(write_options('train', **changes), True)
    kept = list(folder.parent.glob('run*/models/net_g_8.pth'))
    assert len(kept) == 1


# --- several processes ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_torchrun_trains_two_processes_as_one(write_options, workplace, repository):
    """torchrun without --launcher is recognised; both processes see half of each batch."""
    changes = {'datasets:train:batch_size_per_gpu': 2, 'train:total_iter': 4, 'train:ema_decay': 0,
               'train:optim_g': {'type': 'SGD', 'lr': 0.1}}  # fmt: skip
    options = write_options('train', name='two', **changes)
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', f'--master_port={free_port()}',
               str(repository / 'scripts' / 'train.py'), '-opt', str(options)]  # fmt: skip
    done = subprocess.run(command, cwd=workplace, capture_output=True, text=True, env=variables())
    assert done.returncode == 0, done.stderr[-3000:]
    folders = [p.name for p in (workplace / 'experiments').iterdir()]
    assert folders == ['two']
    assert len(rows(workplace / 'experiments' / 'two' / 'validation' / 'held_out.csv')) == 10
    one = train(write_options('train', name='one', **changes | {'datasets:train:batch_size_per_gpu': 4}))
    a, b = weights(one), weights(workplace / 'experiments' / 'two')
    assert max((a[k] - b[k]).abs().max().item() for k in a) < 1e-6


def test_further_losses_and_progressive_patches_take_part(write_options, workplace):
    stages = {'iterations': [3, 5], 'patch_sizes': [16, 32], 'batch_sizes': [3, 1]}
    losses = {'edge': {'type': 'EdgeLoss', 'loss_weight': 0.05}, 'ssim': {'type': 'SSIMLoss', 'loss_weight': 0.1}}
    seen = []

    def look(self, iteration, rain, target, objectives, run=TrainingStep.run):
        seen.append(tuple(rain.shape))
        return run(self, iteration, rain, target, objectives)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingStep, 'run', look)
        folder = train(write_options('train', **{'train:progressive': stages, 'train:losses': losses}))
    assert seen == [(3, 3, 16, 16)] * 3 + [(1, 3, 32, 32)] * 5
    log = next(folder.glob('train_*.log')).read_text(encoding='utf-8')
    for name in ('l_pix', 'l_edge', 'l_ssim'):
        assert f'{name}: ' in log
    # the edge loss takes part in what is made small
    other = train(write_options('train', name='other', **{'train:progressive': stages}))
    ours, others = (torch.load(f / 'models' / 'net_g_8.pth', weights_only=True)['params'] for f in (folder, other))
    assert any(not torch.equal(ours[k], others[k]) for k in ours)


def test_the_recipe_of_a_test_file_reaches_the_scores(write_options, pairs):
    """Truncation makes an image darker by half a level on average."""
    means = {}
    for rounding in ('round', 'truncate'):
        options = write_options('test', name=rounding, **{'val:restore': {'rounding': rounding}, 'val:save_img': True})
        folder = run_test(options)
        files = sorted(folder.rglob('*.png'))
        means[rounding] = np.mean([read_image(file).mean() for file in files])
    assert 0.35 < means['round'] - means['truncate'] < 0.65


def warnings_of(folder):
    """What the newest log of an experiment warns of."""
    log = max(folder.glob('train_*.log'), key=os.path.getmtime).read_text(encoding='utf-8')
    return [line.split(' WARNING: ')[1] for line in log.splitlines() if ' WARNING: ' in line]


def test_a_finished_run_says_so_and_one_that_goes_on_otherwise_is_warned(write_options, workplace, capsys):
    folder = train(write_options('train'))
    for log in folder.glob('*.log'):
        log.unlink()
    assert main(['train', '-opt', 'train.yml', '--auto-resume']) == 0
    assert 'already finished: 8 of 8 steps' in capsys.readouterr().err
    assert warnings_of(folder) == []
    for log in folder.glob('*.log'):
        log.unlink()
    train(write_options('train', **{'train:total_iter': 10, 'train:ema_decay': 0.5}), auto_resume=True)
    assert warnings_of(folder) == ['the run began with other options: train.ema_decay was 0.9, now 0.5']


def test_a_state_of_another_experiment_is_told(write_options, workplace):
    first = train(write_options('train', name='first'))
    state = str(first / 'training_states' / '4.state')
    second = write_options('train', name='second', **{'path:resume_state': state})
    with pytest.raises(
        InputError, match=r'is no state of this experiment, whose states lie in .*second/training_states'
    ):
        train(second)
    folder = train(write_options('train', name='third'))
    for log in folder.glob('*.log'):
        log.unlink()
    train(write_options('train', name='third', **{'path:resume_state': state}))
    assert warnings_of(folder)[0].startswith(f'path.resume_state: {state} is no state of this experiment')


@pytest.mark.slow
@pytest.mark.parametrize(
    'changes',
    [{'datasets:train:persistent_workers': True}, {'train:accumulate': 2}, {'datasets:train:num_worker_per_gpu': 1}],
)
def test_basicsr_itself_trains_and_tests_what_was_resolved(changes, write_options, workplace, repository):
    command = (
        'import os, sys, ddsa_arch\nfrom basicsr.{0} import {0}_pipeline\n'
        'sys.argv = ["x", "-opt", sys.argv[1]]\n{0}_pipeline(os.getcwd())'
    )
    environment = dict(os.environ, PYTHONPATH=str(repository))
    folder = train(write_options('train', **changes))
    weights_file = str(folder / 'models' / 'net_g_latest.pth')
    tested = run_test(write_options('test', **{'path:pretrain_network_g': weights_file}))
    (workplace / 'stock').mkdir()
    for kind, made in (('train', folder), ('test', tested)):
        done = subprocess.run(
            [sys.executable, '-c', command.format(kind), str(made / 'options.yml')], cwd=workplace / 'stock',
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
    assert (workplace / 'stock' / 'experiments' / 'run' / 'models' / 'net_g_latest.pth').is_file()


def test_a_log_that_cannot_be_written_ends_a_test_with_one_message(write_options, workplace, monkeypatch, capsys):
    def emit(handler, record):
        try:
            raise OSError(errno.ENOSPC, 'No space left on device')
        except OSError:
            handler.handleError(record)

    monkeypatch.setattr('logging.FileHandler.emit', emit)
    assert main(['test', '-opt', str(write_options('test'))]) == 2
    message = capsys.readouterr().err
    assert f'error: the disk of {workplace / "results" / "run"} is full; make room on it' in message
    assert 'Traceback' not in message
    assert [p.name for p in workplace.iterdir()] == ['test.yml']
