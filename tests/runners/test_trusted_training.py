"""Training that survives: broken states, poisoned images, several processes, every combination of batch and steps."""

import itertools
import subprocess
import sys
import time

import pytest
import torch
from helpers import LONGEST, free_port, same, variables

from ddsa_arch.errors import InputError
from ddsa_arch.models.derain_model import DerainModel
from ddsa_arch.runners.cli import main
from ddsa_arch.runners.train import train

POISONED = '''
import torch
from basicsr.utils.registry import DATASET_REGISTRY

from ddsa_arch.data.paired_rain_dataset import PairedRainDataset


class {name}(PairedRainDataset):
    """Pairs of which some have pixels that are no numbers."""

    def item(self, place, index):
        item = super().item(place, index)
        if {condition}:
            item['lq'][0, 3, 4] = torch.nan
        return item


if '{name}' not in DATASET_REGISTRY:
    DATASET_REGISTRY.register({name})
'''


def state_of(folder, iteration):
    return torch.load(folder / 'training_states' / f'{iteration}.state', weights_only=True)


def weights(folder, label):
    return torch.load(folder / 'models' / f'net_g_{label}.pth', weights_only=True)


def poisoned(workplace, name, condition):
    (workplace / f'{name.lower()}_set.py').write_text(POISONED.format(name=name, condition=condition), 'utf-8')
    return {'imports': [f'{name.lower()}_set'], 'datasets:train:type': name}


def log_of(folder):
    return '\n'.join(path.read_text(encoding='utf-8') for path in sorted(folder.glob('train_*.log')))


# Poison


def test_a_poisoned_batch_changes_no_weight_and_is_told_with_its_images(write_options, workplace):
    changes = poisoned(workplace, 'OncePoisoned', 'self.train and place == 8')  # the third batch of three
    changes |= {'logger:save_checkpoint_freq': 1, 'train:total_iter': 5}
    folder = train(write_options('train', **changes))
    before, after, later = (weights(folder, i) for i in (2, 3, 4))
    for key in ('params', 'params_ema'):
        assert same(before[key], after[key])
        assert not same(after[key], later[key])
        assert all(torch.isfinite(value).all() for value in later[key].values())
    told = next(line for line in log_of(folder).splitlines() if 'not finite' in line)
    assert 'iteration 3: a loss or the gradient is not finite, so the step was skipped (1 so far, 1 in a row)' in told
    assert told.split('images: ')[1].count('tile') == 3
    assert state_of(folder, 5)['skipped'] == 1


def test_broken_weights_are_not_saved_over_sound_ones(write_options, workplace, monkeypatch, capsys):
    step = DerainModel.optimize_parameters

    def broken_step(self, current_iter):
        step(self, current_iter)
        if current_iter == 6:
            next(self.net_g.parameters()).data[0] = torch.inf

    monkeypatch.setattr(DerainModel, 'optimize_parameters', broken_step)
    options = write_options('train')
    assert main(['train', '-opt', str(options)]) == 2
    assert 'the weights of the network are not finite any more, so none were saved' in capsys.readouterr().err
    folder = workplace / 'experiments' / 'run'
    assert [path.name for path in (folder / 'models').iterdir()] == ['net_g_4.pth']
    assert all(value.isfinite().all() for value in weights(folder, 4)['params'].values())
    monkeypatch.undo()
    monkeypatch.chdir(workplace)
    assert main(['train', '-opt', str(options), '--auto_resume']) == 0


def test_training_stops_after_too_many_skipped_steps_and_keeps_sound_weights(write_options, workplace, capsys):
    # the fifth batch begins with place 14, as each epoch has ten places
    changes = poisoned(workplace, 'MuchPoisoned', 'self.train and place > 13')
    changes |= {'train:total_iter': 50, 'train:max_skipped': 3}
    assert main(['train', '-opt', str(write_options('train', **changes))]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert 'iteration 7: a loss or the gradient is not finite' in message
    assert 'Training stops here (train.max_skipped)' in message
    folder = workplace / 'experiments' / 'run'
    assert [p.name for p in (folder / 'models').iterdir()] == ['net_g_4.pth']
    assert all(torch.isfinite(value).all() for value in weights(folder, 4)['params'].values())


# Resumes


@pytest.mark.parametrize('damage', ['state cut off', 'weights cut off', 'foreign state', 'weights missing'])
def test_a_state_that_cannot_be_used_is_passed_over_for_an_older_one(damage, write_options, trained):
    folder = trained
    expected = {part: weights(folder, 'latest')[part] for part in ('params', 'params_ema')}
    table = (folder / 'validation' / 'summary.csv').read_bytes()
    state, model = folder / 'training_states' / '8.state', folder / 'models' / 'net_g_8.pth'
    if damage == 'state cut off':
        state.write_bytes(state.read_bytes()[:1000])
    elif damage == 'weights cut off':
        model.write_bytes(model.read_bytes()[:1000])
    elif damage == 'foreign state':
        torch.save({'hello': 1}, state)
    else:
        model.unlink()
    (folder / 'models' / 'net_g_latest.pth').unlink()
    train(write_options('train'), auto_resume=True)
    told = next(line for line in log_of(folder).splitlines() if 'passed over a training state' in line)
    assert ('net_g_8.pth' if 'weights' in damage else '8.state') in told
    for part, values in expected.items():
        assert same(weights(folder, 'latest')[part], values)
    assert (folder / 'validation' / 'summary.csv').read_bytes() == table


def test_a_named_state_that_cannot_be_used_is_an_error(write_options, trained):
    state = trained / 'training_states' / '8.state'
    state.write_bytes(b'')
    with pytest.raises(InputError, match=r'path\.resume_state: .*8\.state cannot be read.*name another, or drop it'):
        train(write_options('train', **{'path:resume_state': str(state)}))


def test_a_resume_with_another_schedule_is_an_error(write_options, workplace, capsys):
    folder = train(write_options('train', **{'train:total_iter': 4}))
    before = {path: path.read_bytes() for path in folder.rglob('*.pth')}
    changed = write_options('train', **{'train:scheduler:eta_min': 1e-5, 'train:optim_g:lr': 5e-4})
    assert main(['train', '-opt', str(changed), '--auto_resume']) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert '4.state: the run began with other options: ' in told
    assert 'train.optim_g.lr was ' in told
    assert 'train.scheduler.eta_min was ' in told
    assert told.endswith('or begin a new run from its weights (path.pretrain_network_g)')
    assert {path: path.read_bytes() for path in folder.rglob('*.pth')} == before
    state = folder / 'training_states' / '4.state'
    with pytest.raises(InputError, match=r'train\.scheduler\.eta_min was'):
        train(write_options('train', **{'train:scheduler:eta_min': 1e-5, 'path:resume_state': str(state)}))


def test_a_state_without_a_plan_is_taken(write_options, workplace):
    options = write_options('train', **{'train:total_iter': 4})
    folder = train(options)
    path = folder / 'training_states' / '4.state'
    state = torch.load(path, weights_only=True)
    del state['plan']
    torch.save(state, path)
    assert train(write_options('train'), auto_resume=True) == folder
    assert (folder / 'training_states' / '8.state').is_file()


def test_a_resume_works_from_another_directory(write_options, trained_once, workplace, tmp_path_factory, monkeypatch):
    options = write_options('train', **{'train:total_iter': 4})
    assert main(['train', '-opt', str(options), '--root', str(workplace)]) == 0
    elsewhere = tmp_path_factory.mktemp('elsewhere')
    monkeypatch.chdir(elsewhere)
    options = write_options('train')
    assert main(['train', '-opt', str(options), '--root', str(workplace), '--auto_resume']) == 0
    assert list(elsewhere.iterdir()) == []
    folder = workplace / 'experiments' / 'run'
    assert 'iter: 4' in log_of(folder)
    assert same(weights(folder, 'latest')['params'], weights(trained_once, 'latest')['params'])


def test_a_validation_that_a_kill_prevented_is_made_up_for(write_options, trained):
    """BasicSR saves before it validates: a kill in between loses the scores of that iteration."""
    folder = trained
    table = (folder / 'validation' / 'summary.csv').read_bytes()
    best = state_of(folder, 8)['best_metric_results']
    for part in ('models/net_g_8.pth', 'models/net_g_latest.pth', 'training_states/8.state'):
        (folder / part).unlink()
    for path in (folder / 'validation').glob('*.*'):
        path.unlink()  # the first validation, at 4, is lost
    train(write_options('train'), auto_resume=True)
    assert (folder / 'validation' / 'summary.csv').read_bytes() == table
    assert state_of(folder, 8)['best_metric_results'] == best


def test_old_states_are_pruned(write_options, workplace):
    changes = {'logger:save_checkpoint_freq': 1, 'logger:keep_checkpoints': 2, 'val:val_freq': 100}
    folder = train(write_options('train', **changes))
    assert sorted(p.name for p in (folder / 'training_states').iterdir()) == ['7.state', '8.state']
    kept = ['net_g_7.pth', 'net_g_8.pth', 'net_g_latest.pth']
    assert sorted(p.name for p in (folder / 'models').iterdir()) == kept


# Options of the step


@pytest.mark.parametrize(
    ('size', 'accumulate', 'enlarge'), [(1, 1, 1), (3, 1, 1), (3, 2, 2), (10, 1, 1), (4, 5, 2), (7, 1, 3)]
)
def test_the_steps_asked_for_are_the_steps_taken(size, accumulate, enlarge, write_options):
    changes = {
        'datasets:train:batch_size_per_gpu': size, 'train:accumulate': accumulate,
        'datasets:train:dataset_enlarge_ratio': enlarge, 'train:total_iter': 7, 'logger:save_checkpoint_freq': 7,
        'val:val_freq': 100,
    }  # fmt: skip
    folder = train(write_options('train', **changes))
    steps = {int(entry['step']) for entry in state_of(folder, 7)['optimizers'][0]['state'].values()}
    assert steps == {7}


def test_accumulation_trains_like_the_whole_batch(write_options):
    changes = {'train:optim_g': {'type': 'SGD', 'lr': 0.1}, 'train:ema_decay': 0, 'val:val_freq': 100}
    whole = train(write_options('train', name='whole', **changes, **{'datasets:train:batch_size_per_gpu': 4}))
    parts = train(write_options('train', name='parts', **changes, **{
        'datasets:train:batch_size_per_gpu': 2, 'train:accumulate': 2}))  # fmt: skip
    a, b = (weights(folder, 'latest')['params'] for folder in (whole, parts))
    assert max((a[k] - b[k]).abs().max().item() for k in a) < 1e-6


def test_blocks_computed_anew_train_the_same(write_options):
    changes = {'val:val_freq': 100, 'train:total_iter': 4}
    a = train(write_options('train', name='kept', **changes))
    b = train(write_options('train', name='anew', **changes, **{'train:checkpoint_blocks': True}))
    for part in ('params', 'params_ema'):
        first, second = weights(a, 'latest')[part], weights(b, 'latest')[part]
        assert first.keys() == second.keys()
        assert max((first[k] - second[k]).abs().max().item() for k in first) < 1e-6


# Several processes


def torchrun(workplace, repository, *arguments, script='train.py'):
    launch = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', f'--master_port={free_port()}']
    return subprocess.run(
        [*launch, str(repository / 'scripts' / script), *map(str, arguments)],
        cwd=workplace, capture_output=True, text=True, env=variables(), timeout=2 * LONGEST,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ('size', 'accumulate', 'enlarge'), [(1, 1, 1), (2, 1, 1), (5, 1, 1), (2, 2, 1), (3, 2, 2), (1, 5, 3)]
)
def test_two_processes_take_the_steps_asked_for(size, accumulate, enlarge, write_options, workplace, repository):
    changes = {
        'datasets:train:batch_size_per_gpu': size, 'train:accumulate': accumulate,
        'datasets:train:dataset_enlarge_ratio': enlarge, 'train:total_iter': 7, 'logger:save_checkpoint_freq': 7,
        'val:val_freq': 100,
    }  # fmt: skip
    done = torchrun(workplace, repository, '-opt', write_options('train', **changes))
    assert done.returncode == 0, done.stderr[-3000:]
    state = state_of(workplace / 'experiments' / 'run', 7)
    assert {int(entry['step']) for entry in state['optimizers'][0]['state'].values()} == {7}


@pytest.mark.slow
def test_two_processes_share_a_test_and_write_the_files_of_one(write_options, workplace, repository, pairs):
    """40 images in four sets of ten, one of them without targets, and an odd number of images with the fifth."""
    data = {'dataroot_lq': str(pairs / 'input.lmdb'), 'dataroot_gt': str(pairs / 'target.lmdb')}
    (workplace / 'odd').mkdir()
    for path in itertools.islice(sorted((pairs / 'input').iterdir()), 7):
        (workplace / 'odd' / path.name).write_bytes(path.read_bytes())
    changes = {f'datasets:test_{i}': {'name': f'set{i}', **data} for i in range(2, 5)}
    changes |= {'datasets:test_5': {'name': 'odd', 'dataroot_lq': 'odd'}, 'val:save_img': True}
    options = write_options('test', **changes)
    done = torchrun(workplace, repository, '-opt', options, script='test.py')
    assert done.returncode == 0, done.stderr[-3000:]
    (workplace / 'results').rename(workplace / 'shared')
    one = subprocess.run(
        [sys.executable, str(repository / 'scripts' / 'test.py'), '-opt', str(options)],
        cwd=workplace, capture_output=True, env=variables(),
    )  # fmt: skip
    assert one.returncode == 0
    ours, expected = workplace / 'shared' / 'run', workplace / 'results' / 'run'
    tables = sorted(p.name for p in expected.glob('*.csv'))
    assert tables == ['first.csv', 'odd.csv', 'set2.csv', 'set3.csv', 'set4.csv', 'summary.csv']
    for name in tables:
        assert (ours / name).read_bytes() == (expected / name).read_bytes()
    images = [p.relative_to(expected) for p in expected.rglob('*.png')]
    assert len(images) == 47
    assert all((ours / image).read_bytes() == (expected / image).read_bytes() for image in images)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_with_a_message(write_options, workplace, repository):
    condition = 'self.train and place == 27 and __import__("os")._exit(7)'
    changes = poisoned(workplace, 'Deadly', condition)
    changes |= {'train:total_iter': 1000, 'datasets:train:batch_size_per_gpu': 2}
    done = torchrun(workplace, repository, '-opt', write_options('train', **changes))
    assert done.returncode != 0
    assert 'exitcode  : 7' in done.stderr
    left = subprocess.run(['ps', '-eo', 'args'], capture_output=True, text=True, check=True).stdout
    assert str(workplace) not in left


# Two runs at once


def test_a_second_run_of_a_name_is_refused_while_the_first_one_runs(write_options, workplace, repository):
    """With --auto_resume too; the first one goes on as if nothing had been."""
    options = write_options('train', **{'train:total_iter': 100000, 'logger:keep_checkpoints': 2})
    command = [sys.executable, str(repository / 'scripts' / 'train.py'), '-opt', str(options)]
    first = subprocess.Popen(command, cwd=workplace, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not any((workplace / 'experiments' / 'run' / 'training_states').glob('*.state')):
            assert first.poll() is None
            time.sleep(0.05)
        for flag in ([], ['--auto_resume']):
            second = subprocess.run([*command, *flag], cwd=workplace, capture_output=True, text=True)
            assert second.returncode == 2
            assert f'is in use by process {first.pid} on ' in second.stderr
            assert "choose another name: --force_yml 'name=...'" in second.stderr
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()
    assert sorted(path.name for path in (workplace / 'experiments').iterdir()) == ['.run.lock', 'run']
    folder = train(write_options('train', **{'train:total_iter': 8}))
    assert folder.name == 'run'
