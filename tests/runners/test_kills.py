"""A run that is killed again and again, and goes on each time, ends like one that was left alone."""

import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers import LONGEST, free_port, variables

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == 'win32', reason='no SIGKILL')]

ITERATIONS = 300
SAVED_EVERY = 5


def command(options, processes, repository):
    script = [str(repository / 'scripts' / 'train.py'), '-opt', str(options), '--auto_resume']
    if processes == 1:
        return [sys.executable, *script]
    torchrun = [sys.executable, '-m', 'torch.distributed.run']
    return [*torchrun, f'--nproc_per_node={processes}', f'--master_port={free_port()}', *script]


def newest(folder):
    return max((int(path.stem) for path in (folder / 'training_states').glob('*.state')), default=0)


def run_and_kill(arguments, folder, workplace, chance):
    """Start a run, kill it at a random moment after a random number of states; whether it was still running."""
    target = newest(folder) + SAVED_EVERY * chance.randrange(0, 3)
    process = subprocess.Popen(
        arguments, cwd=workplace, env=variables(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    began = time.monotonic()
    while process.poll() is None and newest(folder) < max(target, 1) and time.monotonic() - began < LONGEST:
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.25))
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def processes_of(options):
    """Those that run with an option file, such as workers that outlive torchrun."""
    listed = subprocess.run(['ps', '-eo', 'pid,args'], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(options) in line]


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize(('processes', 'kills'), [(1, 20), (2, 5)])
def test_a_killed_run_ends_bit_equal_to_an_uninterrupted_one(processes, kills, write_options, workplace, repository):
    changes = {
        'train:total_iter': ITERATIONS, 'logger:save_checkpoint_freq': SAVED_EVERY, 'logger:keep_checkpoints': 3,
        'val:val_freq': 25, 'datasets:train:batch_size_per_gpu': 2, 'datasets:train:num_worker_per_gpu': 1,
        'datasets:train:persistent_workers': True, 'logger:print_freq': 5,
    }  # fmt: skip
    whole_options = write_options('train', name='whole', **changes)
    plain = command(whole_options, processes, repository)
    subprocess.run(plain, cwd=workplace, env=variables(), check=True, capture_output=True)
    options = workplace / 'killed.yml'
    options.write_text(whole_options.read_text(encoding='utf-8').replace('name: whole', 'name: killed'), 'utf-8')

    folder, chance = workplace / 'experiments' / 'killed', random.Random(processes)
    killed = 0
    for _ in range(kills):
        killed += run_and_kill(command(options, processes, repository), folder, workplace, chance)
        until = time.monotonic() + LONGEST
        while processes_of(options) and time.monotonic() < until:
            time.sleep(0.1)
        assert processes_of(options) == []
    assert killed == kills
    before_the_end = newest(folder)
    last = command(options, processes, repository)
    subprocess.run(last, cwd=workplace, env=variables(), check=True, capture_output=True)
    assert 0 < before_the_end < ITERATIONS

    whole = workplace / 'experiments' / 'whole'
    for part in ('models/net_g_latest.pth', f'training_states/{ITERATIONS}.state'):
        ours, expected = (torch.load(place / part, weights_only=True) for place in (folder, whole))
        assert same(ours, expected), part
    for place in ('models', 'training_states'):
        assert sorted(p.name for p in (folder / place).iterdir()) == sorted(p.name for p in (whole / place).iterdir())
    for table in ('summary.csv', 'held_out.csv'):
        assert (folder / 'validation' / table).read_bytes() == (whole / 'validation' / table).read_bytes()
