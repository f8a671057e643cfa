"""How the commands let OpenMP's threads wait, and that a program which imports the package is left alone."""

import os
import subprocess
import sys

import pytest

from ddsa_arch import openmp


@pytest.fixture
def environment(monkeypatch):
    for name in openmp.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ('words', 'set_here'),
    [
        (['python', '/usr/bin/ddsa', 'train'], True),
        (['python.exe', r'ddsa.exe', 'train'], True),
        (['python', '-m', 'ddsa_arch.runners.quickstart'], True),
        (['python', '-m', 'pytest'], False),
        (['python', 'my_script.py', '--with', 'ddsa'], False),
        (['python'], False),
    ],
)
def test_commands_alone_set_it(words, set_here, environment):
    environment.setattr(sys, 'orig_argv', words)
    openmp.wait_considerately()
    assert os.environ.get('GOMP_SPINCOUNT') == ('1000' if set_here else None)
    assert openmp.waiting() == ('GOMP_SPINCOUNT=1000' if set_here else "OpenMP's own choice")


@pytest.mark.parametrize(('name', 'value'), [('GOMP_SPINCOUNT', '5'), ('OMP_WAIT_POLICY', 'PASSIVE')])
def test_what_the_user_has_set_stays(name, value, environment):
    environment.setattr(sys, 'orig_argv', ['python', 'ddsa'])
    environment.setenv(name, value)
    openmp.wait_considerately()
    assert openmp.waiting() == f'{name}={value}'


def output(command, **variables):
    environment = {k: v for k, v in os.environ.items() if k not in openmp.VARIABLES} | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_doctor_tells_what_the_command_has_set():
    told = output([sys.executable, '-m', 'ddsa_arch.runners.cli', 'doctor'])
    assert 'how they wait for each other: GOMP_SPINCOUNT=1000' in told
    assert output([sys.executable, '-c', 'import ddsa_arch, os; print(os.environ.get("GOMP_SPINCOUNT"))']) == 'None\n'


def test_the_scripts_set_it_before_torch_is_loaded(repository):
    code = (
        'import os, runpy, sys; sys.path.insert(0, "scripts"); sys.argv = ["train.py", "--help"]\n'
        'try: runpy.run_path("scripts/train.py", run_name="__main__")\n'
        'except SystemExit: print(os.environ["GOMP_SPINCOUNT"])'
    )
    command = [sys.executable, '-c', code]
    environment = {k: v for k, v in os.environ.items() if k not in openmp.VARIABLES}
    done = subprocess.run(command, env=environment, cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.endswith('1000\n')
