"""The scripts that start from a bare Python: tried without a network, pip is played by a function."""

import ast
import importlib
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / 'scripts'


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.delenv('DDSA_TORCH', raising=False)
    return importlib.import_module('_environment')


@pytest.fixture
def quickstart(environment):
    return importlib.import_module('quickstart')


@pytest.fixture
def run_tests(environment):
    return importlib.import_module('run_tests')


@pytest.fixture
def checkout(tmp_path):
    """A folder with the two files that decide what is installed."""
    (tmp_path / 'scripts').mkdir()
    for name in ('setup.py', 'scripts/requirements.txt'):
        (tmp_path / name).write_text((ROOT / name).read_text('utf-8'), 'utf-8')
    return tmp_path


class FakeRunner:
    """Makes a real .venv without pip; plays every other command: notes it down, or fails as it is told."""

    def __init__(self):
        self.commands = []
        self.environments = []
        self.fail_at = None
        self.output = ''

    def __call__(self, command, log, environment):
        self.commands.append(command)
        self.environments.append(environment)
        if 'venv' in command:
            return subprocess.call(command), ''
        if self.fail_at and any(word.startswith(self.fail_at) for word in command):
            if isinstance(self.output, BaseException):
                raise self.output
            return 1, self.output
        return 0, ''

    def called(self, start):
        """The commands that have a word beginning in this way."""
        return [command for command in self.commands if any(word.startswith(start) for word in command)]


@pytest.fixture
def runner(environment, monkeypatch):
    fake = FakeRunner()
    monkeypatch.setattr(environment, 'run_logged', fake)
    return fake


def test_makes_the_environment_once(environment, checkout, runner, capsys):
    python = environment.ensure_environment(checkout)
    assert python.exists()
    assert python.is_relative_to(checkout / '.venv')
    assert runner.called('basicsr==')
    assert runner.called('torch==')
    assert 'first time only' in capsys.readouterr().out

    runner.commands.clear()
    assert environment.ensure_environment(checkout) == python
    assert runner.commands == []
    assert capsys.readouterr().out == ''


def test_what_would_bring_other_packages_comes_after_what_it_needs_and_alone(environment, checkout, runner):
    environment.ensure_environment(checkout)
    steps = ('setuptools==', 'numpy==', 'torch==', 'basicsr==', 'brisque==', 'spandrel==', '--editable')
    order = [runner.commands.index(runner.called(name)[0]) for name in steps]
    assert order == sorted(order)
    for name in ('basicsr==', 'brisque==', 'spandrel==', '--editable'):
        (command,) = runner.called(name)
        assert '--no-deps' in command


@pytest.mark.parametrize('name', ['setup.py', 'scripts/requirements.txt'])
def test_a_changed_file_installs_again(environment, checkout, runner, name):
    environment.ensure_environment(checkout)
    runner.commands.clear()
    with (checkout / name).open('a') as file:
        file.write('\n# changed\n')
    environment.ensure_environment(checkout)
    assert runner.called('--editable')
    assert not runner.called('venv')


def test_the_stamp_knows_python_torch_and_place(environment, checkout, tmp_path_factory, monkeypatch):
    seen = {environment.fingerprint(checkout, ''), environment.fingerprint(checkout, 'torch==2.12.1')}
    monkeypatch.setattr(sys.implementation, 'cache_tag', 'cpython-399')
    seen.add(environment.fingerprint(checkout, ''))
    moved = tmp_path_factory.mktemp('moved') / 'checkout'
    checkout.rename(moved)
    seen.add(environment.fingerprint(moved, ''))
    assert len(seen) == 4


def test_a_run_killed_half_way_is_completed_by_the_next(environment, checkout, runner):
    runner.fail_at, runner.output = 'torch==', SystemExit(9)
    with pytest.raises(SystemExit):
        environment.ensure_environment(checkout)
    half = next((checkout / '.venv').glob('[lL]ib/**/site-packages')) / 'torch-2.13.0.dist-info'
    half.mkdir()
    (half / 'METADATA').write_text('Name: torch')  # pip wrote this and was killed before INSTALLER
    whole = half.with_name('numpy-2.4.6.dist-info')
    whole.mkdir()
    (whole / 'INSTALLER').write_text('pip')

    runner.fail_at = None
    runner.commands.clear()
    environment.ensure_environment(checkout)
    assert not runner.called('venv')
    assert runner.called('torch==')
    assert runner.called('--editable')
    assert not half.exists()
    assert whole.exists()


def test_an_update_killed_half_way_does_not_count_as_the_old_state(environment, checkout, runner):
    environment.ensure_environment(checkout)
    old = (checkout / 'setup.py').read_text()
    (checkout / 'setup.py').write_text(old + '\n# changed\n')
    runner.fail_at = 'basicsr=='
    with pytest.raises(SystemExit):
        environment.ensure_environment(checkout)
    (checkout / 'setup.py').write_text(old)
    runner.fail_at = None
    runner.commands.clear()
    environment.ensure_environment(checkout)
    assert runner.called('--editable')


def test_a_broken_python_is_replaced(environment, checkout, runner, capsys):
    python = environment.ensure_environment(checkout)
    python.unlink()
    leftover = checkout / '.venv' / 'leftover'
    leftover.touch()
    runner.commands.clear()
    environment.ensure_environment(checkout)
    assert runner.called('venv')
    assert python.exists()
    assert not leftover.exists()
    assert 'Remaking .venv' in capsys.readouterr().out


def test_a_missing_pip_is_put_back(environment, checkout, runner):
    runner.fail_at = '--version'
    environment.ensure_environment(checkout)
    (put_back,), (renewed,) = runner.called('ensurepip'), runner.called('pip==')
    assert runner.commands.index(put_back) < runner.commands.index(renewed)


def test_an_environment_of_another_python_is_replaced(environment, checkout, runner, monkeypatch):
    environment.ensure_environment(checkout)
    runner.commands.clear()
    monkeypatch.setattr(environment, '_version', lambda: 'cpython-399')
    environment.ensure_environment(checkout)
    assert runner.called('venv')


def test_an_environment_of_somebody_else_is_never_emptied(environment, checkout, runner):
    keep = checkout / '.venv' / 'keep'
    keep.parent.mkdir()
    keep.touch()
    with pytest.raises(SystemExit, match='made by somebody else'):
        environment.ensure_environment(checkout)
    assert keep.exists()
    assert runner.commands == []


def test_another_torch_is_installed_and_remembered(environment, checkout, runner, monkeypatch):
    monkeypatch.setenv('DDSA_TORCH', 'torch==2.12.1')
    environment.ensure_environment(checkout)
    assert runner.called('torch==') == runner.called('torch==2.12.1')
    assert runner.called('torch==')[0][-1] == 'torchvision'  # whichever release fits

    monkeypatch.delenv('DDSA_TORCH')
    runner.commands.clear()
    environment.ensure_environment(checkout)
    assert runner.commands == []

    monkeypatch.setenv('DDSA_TORCH', '')
    environment.ensure_environment(checkout)
    assert runner.called('torchvision==')


def test_a_torch_that_could_not_be_installed_is_not_remembered(environment, checkout, runner, monkeypatch):
    monkeypatch.setenv('DDSA_TORCH', 'torch==99')
    runner.fail_at = 'torch==99'
    with pytest.raises(SystemExit):
        environment.ensure_environment(checkout)
    monkeypatch.delenv('DDSA_TORCH')
    environment.ensure_environment(checkout)
    assert runner.called('torchvision==')


@pytest.mark.parametrize(
    ('output', 'advice'),
    [
        ("WARNING: Retrying ... 'NewConnectionError(...)'\nERROR: No matching distribution found", 'network'),
        ('ERROR: No matching distribution found for torch==2.13.0', 'Python 3.10 to 3.14'),
        ('ERROR: Could not install packages: [Errno 28] No space left on device', 'full'),
        ('not created successfully because ensurepip is not\navailable', 'python3.[0-9]+-venv'),
        ('ImportError: libGL.so.1: cannot open shared object file', 'libgl1'),
        ("PermissionError: [Errno 13] Permission denied: '/x'", 'cannot be written'),
        ('something new', 'Run the command again'),
    ],
)
def test_a_failing_step_says_what_to_do(environment, checkout, runner, output, advice):
    runner.fail_at, runner.output = 'basicsr==', 'first line\n' * 50 + output
    with pytest.raises(SystemExit) as caught:
        environment.ensure_environment(checkout)
    text = caught.value.code  # a text as exit code: Python prints it to stderr and exits with 1
    assert output.splitlines()[-1] in text
    assert f'Failed: Downloading {environment.BASICSR}' in text
    assert re.search(advice, text.splitlines()[-1])
    assert len(text.splitlines()) < 16


def test_errors_of_the_system_need_no_traceback(environment, checkout, runner):
    runner.fail_at, runner.output = '--editable', OSError(28, 'No space left on device')
    with pytest.raises(SystemExit, match='Make room'):
        environment.ensure_environment(checkout)


def test_ctrl_c_exits_with_130(environment, checkout, runner):
    runner.fail_at, runner.output = '--editable', KeyboardInterrupt()
    with pytest.raises(SystemExit) as caught:
        environment.ensure_environment(checkout)
    assert caught.value.code == 130


def test_pip_is_not_led_astray_by_the_users_settings(environment, checkout, runner, monkeypatch):
    for name in ('PYTHONPATH', 'PIP_TARGET', 'PIP_USER'):
        monkeypatch.setenv(name, '1')
    environment.ensure_environment(checkout)
    for used in runner.environments:
        assert 'PIP_TARGET' not in used
        assert used['PIP_USER'] == '0'
        assert used.get('PYTHONPATH') != '1'


def test_a_real_command_is_logged_and_returned(environment, tmp_path):
    with (tmp_path / 'install.log').open('a') as log:
        log.write('before\n')
        log.flush()
        status, output = environment.run_logged(
            [sys.executable, '-c', 'print("said"); raise SystemExit(3)'], log, dict(os.environ)
        )
    assert (status, output.split()) == (3, ['said'])
    assert (tmp_path / 'install.log').read_text().split() == ['before', 'said']


def test_an_old_python_is_told_so_in_one_line(environment):
    environment.check_python((3, 10, 0))
    with pytest.raises(SystemExit) as caught:
        environment.check_python((3, 9, 18))
    assert 'Python 3.10 or newer is needed, and this is 3.9.18' in caught.value.code
    assert '\n' not in caught.value.code


@pytest.mark.parametrize(
    'name', ['_environment.py', 'quickstart.py', 'run_tests.py', 'ddsa_start/__init__.py', 'ddsa_start/toolbox.py']
)
def test_an_old_python_can_read_the_scripts(name):
    ast.parse((SCRIPTS / name).read_text('utf-8'), feature_version=(3, 6))


def test_exec_fills_the_locals_of_its_caller(environment, tmp_path):
    """What BasicSR's setup.py relies on, next to the uses that must stay as they are."""
    (tmp_path / 'sitecustomize.py').write_text(importlib.import_module('ddsa_start.toolbox').SITECUSTOMIZE)
    program = tmp_path / 'program.py'
    program.write_text(
        'import json\n'
        'def get_version():\n'
        '    exec(compile("__version__ = 7", "version.py", "exec"))\n'
        '    return locals()["__version__"]\n'
        'def explicit():\n'
        '    names, inner = {}, {}\n'
        '    exec("x = 1", names)\n'
        '    exec("y = x", names, inner)\n'
        '    return [names["x"], inner, "y" in names, sorted(locals())]\n'
        'exec("z = 3")\n'
        'class Body:\n'
        '    exec("w = 4")\n'
        'print(json.dumps([get_version(), explicit(), z, Body.w]))\n'
    )
    variables = {**os.environ, 'PYTHONPATH': str(tmp_path)}
    output = subprocess.check_output([sys.executable, str(program)], env=variables)
    assert json.loads(output) == [7, [1, {'y': 1}, False, ['inner', 'names']], 3, 4]


def test_requirements_name_all_that_setup_py_needs(environment):
    lines = environment.read_requirements(SCRIPTS / 'requirements.txt')
    names = {environment.project_name(line) for line in lines}
    assert all('==' in line for line in lines)
    assert not names & {'basicsr', 'brisque', 'tb-nightly'}

    (call,) = [n for n in ast.walk(ast.parse((ROOT / 'setup.py').read_text('utf-8')))
               if isinstance(n, ast.Call) and getattr(n.func, 'id', '') == 'setup']  # fmt: skip
    keywords = {k.arg: k.value for k in call.keywords}
    needs = ast.literal_eval(keywords['install_requires'])
    needs += itertools.chain(*ast.literal_eval(keywords['extras_require']).values())
    assert {environment.project_name(need) for need in needs} - {'basicsr', 'brisque', 'gradio'} <= names


def test_help_needs_no_environment(environment, quickstart, run_tests, monkeypatch, capsys):
    monkeypatch.setattr(environment, 'ensure_environment', pytest.fail)
    assert quickstart.main(['--help']) == 0
    assert '--minutes' in capsys.readouterr().out
    assert run_tests.main(['-h']) == 0
    assert '--slow' in capsys.readouterr().out


def test_the_quickstart_passes_arguments_and_exit_status_on(environment, quickstart, monkeypatch):
    seen = []
    monkeypatch.setattr(environment, 'ensure_environment', lambda: 'python')
    monkeypatch.setattr(environment, 'hand_over', lambda command: seen.append(command) or 3)
    assert quickstart.main(['--minutes', '2']) == 3
    assert seen == [['python', '-m', 'ddsa_arch.runners.quickstart', '--minutes', '2']]


def test_the_exit_status_of_a_program_is_passed_on(environment):
    assert environment.hand_over([sys.executable, '-c', 'raise SystemExit(7)']) == 7
