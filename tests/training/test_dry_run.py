"""A dry run: what it tells, refuses and leaves."""

import subprocess
import sys

import pytest
import torch
from helpers import LONGEST, free_port, variables

import ddsa_arch.training.dry_run as dry_run_module
from ddsa_arch.archs.building import build_network
from ddsa_arch.runners.cli import main
from ddsa_arch.runners.train import train
from ddsa_arch.training.dry_run import Estimate, dry_run, duration

KNOWN = Estimate(
    options={'train': {'total_iter': 1000}, 'val': {'val_freq': 300, 'metrics': {'psnr': {}}}, 'num_gpu': 0,
             'logger': {'save_checkpoint_freq': 100, 'keep_checkpoints': 3}, 'world_size': 2},
    parameters=1234567, images=8, steps=[2.0, 9.0, 2.5], wait=0.1, peak=512 * 2**20,
    validation=[('one', 100, 0.5), ('two', 7, 1.0)], weights=2**20, state=2**21, saving=0.5,
)  # fmt: skip


def test_a_dry_run_leaves_nothing(write_options, workplace, tmp_path_factory, monkeypatch, capsys):
    temporary = tmp_path_factory.mktemp('temporary')
    monkeypatch.setattr('tempfile.tempdir', str(temporary))
    options = write_options('train', **{'logger:use_tb_logger': True, 'val:save_img': True})
    assert main(['train', '--dry-run', '-opt', str(options)]) == 0
    assert [p.name for p in workplace.iterdir()] == ['train.yml']
    assert list(temporary.iterdir()) == []
    written = capsys.readouterr()
    assert written.err == ''
    labels = [line.split(':')[0] for line in written.out.splitlines()]
    assert labels == ['parameters', 'images per step', 'seconds per step', 'peak memory', 'validation, held_out',
                      'disk', 'whole run']  # fmt: skip


def test_what_is_measured_is_what_a_run_has(write_options):
    options = write_options('train')
    estimate = dry_run(options)
    folder = train(options)
    assert 'iter:       8' in next(folder.glob('*.log')).read_text(encoding='utf-8')  # it was quiet before
    assert estimate.images == 3
    network = estimate.options['network_g']
    assert estimate.parameters == sum(p.numel() for p in build_network(network).parameters())
    assert len(estimate.steps) == dry_run_module.TIMED_STEPS
    assert all(0 < seconds < LONGEST for seconds in estimate.steps)
    assert 0 <= estimate.wait < LONGEST
    assert 50 * 2**20 < estimate.peak < 64 * 2**30
    assert [(name, count) for name, count, _ in estimate.validation] == [('held_out', 10)]
    assert estimate.weights == pytest.approx((folder / 'models' / 'net_g_8.pth').stat().st_size, rel=0.02)
    saved = [p for part in ('models', 'training_states') for p in (folder / part).iterdir()]
    assert estimate.disk == pytest.approx(sum(p.stat().st_size for p in saved), rel=0.05)
    assert (estimate.validations, estimate.checkpoints, estimate.total_steps) == (2, 2, 8)


def test_the_whole_run_from_known_numbers():
    """1000 steps of 2.5 s, 4 validations of 50 images of 0.5 s and 4 of 1 s on each of 2 processes, 10 savings."""
    assert KNOWN.seconds == 2500 + 4 * (25 + 4) + 10 * 0.5
    assert KNOWN.validations == 4
    # 3 states and their weights, the newest weights, the best ones of 2 sets
    assert KNOWN.disk == (3 * 3 + 1 + 2) * 2**20
    lines = dict(line.split(':', 1) for line in KNOWN.text().splitlines())
    assert lines['parameters'].strip() == '1,234,567'
    assert lines['seconds per step'].strip() == '2.5 (median of 3), 10% waiting for data'
    assert lines['whole run'].strip() == '44 minutes, 1,000 steps and 4 validations'


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(10, '1 minutes'), (754, '13 minutes'), (3 * 3600 + 1500, '3.4 hours'), (27 * 3600, '1 day 3 hours'),
     (49.6 * 3600, '2 days 2 hours')],
)  # fmt: skip
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


def test_slow_steps_end_early(write_options, monkeypatch):
    monkeypatch.setattr(dry_run_module, 'LONGEST', 0.0)
    estimate = dry_run(write_options('train'))
    assert len(estimate.steps) == 1
    assert estimate.images == 3


def test_epochs_shorter_than_the_trial_and_loading_processes(write_options):
    """10 pairs make one step of 9."""
    changes = {'datasets:train:batch_size_per_gpu': 9, 'datasets:train:num_worker_per_gpu': 1}
    estimate = dry_run(write_options('train', **changes))
    assert (len(estimate.steps), estimate.images) == (5, 9)


def test_without_validation_sets(write_options):
    estimate = dry_run(write_options('train', **{'datasets:val': None}))
    assert estimate.validations == 0
    assert 'validation' not in estimate.text().splitlines()[4]


def test_a_state_to_continue_from_is_looked_for_and_left_alone(write_options, capsys):
    options = write_options('train', **{'path:resume_state': 'none.state'})
    assert main(['train', '--dry-run', '-opt', str(options)]) == 2
    assert 'path.resume_state: no file none.state' in capsys.readouterr().err
    torch.save({'iter': 5000}, options.parent / 'some.state')
    assert dry_run(write_options('train', **{'path:resume_state': 'some.state'})).images == 3


def test_wrong_input_is_refused_as_in_a_run(write_options, workplace, capsys):
    options = write_options('train', **{'datasets:train:dataroot_lq': 'nowhere.lmdb'})
    messages = []
    for flags in ([], ['--dry-run']):
        assert main(['train', *flags, '-opt', str(options)]) == 2
        messages.append(capsys.readouterr().err)
    assert messages[0] == messages[1]
    assert messages[1].startswith('error: datasets.train.dataroot_lq')
    assert [p.name for p in workplace.iterdir()] == ['train.yml']


@pytest.mark.slow
def test_several_processes_try_together(write_options, workplace, repository):
    options = write_options('train')
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', f'--master_port={free_port()}',
               str(repository / 'scripts' / 'train.py'), '--dry-run', '-opt', str(options)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=variables())
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('images per step:      6') == 1
    assert [p.name for p in workplace.iterdir()] == ['train.yml']
