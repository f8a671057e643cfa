"""A run that is killed again and again, and goes on each time, ends like one that was left alone."""

import random
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch
from helpers import LONGEST, MIXTURE_SHARES, free_port, variables, write_mixture

from ddsa_arch.files.images import images_by_stem, write_image
from ddsa_arch.ops.rain import LIGHT
from ddsa_arch.sets.synthesis import render_pairs

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


@pytest.mark.parametrize('workers', [0, 1, 2])
def test_a_killed_mixture_ends_bit_equal_to_an_uninterrupted_one(workers, write_options, workplace, repository):
    changes = {'train:total_iter': 200, 'train:scheduler:end': 200, 'logger:save_checkpoint_freq': 10}
    whole_options = write_mixture(write_options, 'whole', **changes)
    subprocess.run(command(whole_options, 1, repository), cwd=workplace, env=variables(), check=True)
    options = write_mixture(write_options, 'killed', **changes, **{'datasets:train:num_worker_per_gpu': workers})
    folder, chance = workplace / 'experiments' / 'killed', random.Random(workers)
    killed = sum(run_and_kill(command(options, 1, repository), folder, workplace, chance) for _ in range(5))
    assert (killed, newest(folder) < 200) == (5, True)
    subprocess.run(command(options, 1, repository), cwd=workplace, env=variables(), check=True)

    for part in ('models/net_g_latest.pth', 'training_states/200.state'):
        places = (folder / part, workplace / 'experiments' / 'whole' / part)
        ours, expected = (torch.load(place, weights_only=True) for place in places)
        assert same(ours, expected), part
    seen = ours['seen']
    assert {name: count / sum(seen.values()) for name, count in seen.items()} == pytest.approx(MIXTURE_SHARES, abs=0.01)


def clip(path, frames=40):
    """A short video, of any kind that cv2 writes."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 10, (96, 64))
    for i in range(frames):
        writer.write(np.full((64, 96, 3), 5 * i, np.uint8))
    writer.release()


def works(workplace, photo):
    """Commands whose results a kill must not leave half-made, with the folder that each writes to."""
    (workplace / 'clean').mkdir()
    for i in range(24):
        write_image(workplace / 'clean' / f'{i}.png', photo[i : i + 200, i : i + 300])
    render_pairs(dict(images_by_stem(workplace / 'clean', 'clean')), workplace / 'set', LIGHT)
    clip(workplace / 'clip.mp4')
    return {
        'synth': ['data', 'synth', '--clean', 'clean', '--out', 'out/pairs'],
        'derain': ['derain', 'clip.mp4', 'set/input/0_0.png', '-o', 'out/derained', '--overwrite'],
        'compare': ['compare', 'a=set/input', '--target', 'set/target', '-o', 'out/compared'],
        'export': ['export', '-o', 'out/net.pt2', '--overwrite'],
    }


def is_part(path):
    return '.part' in path.name or path.name.endswith('.lock')


@pytest.mark.parametrize('work', ['synth', 'derain', 'compare', 'export'])
def test_a_killed_command_leaves_nothing_half_made(work, workplace, photo):
    arguments = [sys.executable, '-m', 'ddsa_arch.runners.cli', *works(workplace, photo)[work]]
    quiet = {'cwd': workplace, 'env': variables(), 'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
    subprocess.run(arguments, **quiet, check=True)
    whole = {p.relative_to(workplace / 'out'): p.stat().st_size for p in (workplace / 'out').rglob('*') if p.is_file()}
    chance, killed = random.Random(work), 0
    for _ in range(12):
        shutil.rmtree(workplace / 'out')
        process = subprocess.Popen(arguments, **quiet)
        began = time.monotonic()
        while process.poll() is None and not any((workplace / 'out').rglob('*.part*')):
            assert time.monotonic() - began < 300
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        while processes_of('--out out/pairs'):  # a pool's processes end with their parent
            assert time.monotonic() - began < 300
            time.sleep(0.05)
        for path in (workplace / 'out').rglob('*'):
            place = path.relative_to(workplace / 'out')
            inside_a_part = any('.part' in name for name in place.parts)
            if path.is_file() and not inside_a_part and not is_part(path):
                assert whole[place] == path.stat().st_size or work in ('compare', 'export'), place
    assert killed >= 3
    subprocess.run(arguments, **quiet, check=work != 'synth')  # which replaces no pairs that are there
    left = {p.relative_to(workplace / 'out') for p in (workplace / 'out').rglob('*') if p.is_file()}
    assert left == set(whole)
