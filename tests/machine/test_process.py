import os
import subprocess
import sys

import pytest
import torch

from ddsa_arch.errors import InputError
from ddsa_arch.machine import process
from ddsa_arch.runners import doctor
from ddsa_arch.runners.cli import run_main


def test_torchrun_is_recognised_by_its_variables(monkeypatch):
    monkeypatch.delenv('WORLD_SIZE', raising=False)
    assert process.detect_launcher('none') == 'none'
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setenv('RANK', '0')
    assert process.detect_launcher('none') == 'pytorch'
    assert process.detect_launcher('slurm') == 'slurm'


def test_a_launcher_without_its_variables_is_refused(monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match='start the command with torchrun'), process.process_group('pytorch', False):
        pass
    with pytest.raises(InputError, match='SLURM_PROCID is not set'), process.process_group('slurm', False):
        pass


def test_one_process_needs_no_group():
    with process.process_group('none', False):
        assert process.is_first_process()


FAULTS = """
import resource, sys, torch
sys.path.insert(0, sys.argv[2])
from ddsa_arch.machine.process import keep_freed_memory
kept = keep_freed_memory(of_any_size=sys.argv[1] == 'keep') if sys.argv[1] != 'leave' else False
x = torch.rand(int(sys.argv[3]), 1 << 18)
def work():
    for row in range(10):
        y = x * 2  # so many MiB, freed at once
faults = []
for _ in range(10):  # the heap takes a few rounds to find its places, and may grow once more in any of them
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(kept, min(faults))
"""


def faults(mode, repository, mib):
    command = [sys.executable, '-c', FAULTS, mode, str(repository), str(mib)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ})
    kept, number = run.stdout.split()
    if mode != 'leave' and kept == 'False':
        pytest.skip('not glibc')
    return int(number)


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc')
def test_kept_memory_faults_in_its_pages_once(repository):
    left = faults('leave', repository, 40)
    assert faults('keep', repository, 40) < min(100, left / 10)


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc')
def test_large_tensors_can_be_given_back(repository):
    """Those of a strip stay below 32 MiB and are kept."""
    assert faults('keep small', repository, 30) < 100
    assert faults('keep small', repository, 40) > 1000


def test_the_settings_of_torch_last_for_a_block():
    before = torch.get_num_threads()
    with process.torch_settings(tf32=False, deterministic=True, threads=before + 1):
        assert torch.get_num_threads() == before + 1
        assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == before
    assert not torch.are_deterministic_algorithms_enabled()
    with process.torch_settings(tf32=False, deterministic=False, threads=None):
        assert torch.get_num_threads() == before


def test_doctor_shows_what_commands_set_up_and_how_to_leave_it_alone(capsys):
    assert doctor.main([]) == 0
    printed = capsys.readouterr().out
    for key in ('keep_memory', '--no-keep-memory', 'threads', 'channels_last', 'tf32', 'cudnn_benchmark'):
        assert key in printed.split('set up by the commands')[1].split('repaired')[0]


def test_derain_refuses_a_number_of_threads_below_one(capsys):
    assert run_main('ddsa_arch.runners.derain', ['x.png', '-o', 'out', '--weights', 'w.pth', '--threads', '0']) == 2
    assert '--threads 0: wanted a whole number from 1 up' in capsys.readouterr().err
