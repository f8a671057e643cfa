import os
import subprocess
import sys

import pytest

from ddsa_arch.ops.errors import InputError
from ddsa_arch.runners import process


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
from ddsa_arch.runners.process import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == 'keep' else False
x = torch.rand(40, 1 << 18)
def work():
    for row in range(10):
        y = x * 2  # 40 MiB, freed at once
for _ in range(4):  # the heap takes a few rounds to find its places
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc')
def test_kept_memory_faults_in_its_pages_once(repository):
    faults = {}
    for mode in ('keep', 'leave'):
        command = [sys.executable, '-c', FAULTS, mode, str(repository)]
        out = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ}).stdout.split()
        faults[mode] = int(out[1])
        if mode == 'keep' and out[0] == 'False':
            pytest.skip('not glibc')
    assert faults['keep'] < 100
    assert faults['keep'] < faults['leave'] / 10
