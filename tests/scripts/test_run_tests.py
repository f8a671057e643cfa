"""What scripts/run_tests.py asks pytest for, and which tests it takes for the files that have changed."""

import importlib
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS = 'tests/test_floors.py'
TWO = ['-n', '2', '--dist', 'worksteal']


@pytest.fixture
def run_tests(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'scripts'))
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    return importlib.import_module('run_tests')


@pytest.mark.parametrize(
    ('words', 'wanted'),
    [
        ([], [*TWO, '-m', 'not slow', 'tests']),
        (['-k', 'pad'], [*TWO, '-m', 'not slow', '-k', 'pad', 'tests']),
        (['--slow', '--lint', '-x'], ['-x', 'tests']),
        (['--pdb'], ['-m', 'not slow', '--pdb', 'tests']),
        (['-n', '4'], ['-m', 'not slow', '-n', '4', 'tests']),
        (['tests/scripts', '--slow'], ['tests/scripts']),
        (['tests/scripts/test_run_tests.py::test_a'], ['-m', 'not slow', 'tests/scripts/test_run_tests.py::test_a']),
        (['--quick'], ['-m', 'core and not slow', 'tests']),
    ],
)
def test_what_pytest_is_called_with(words, wanted, run_tests):
    assert run_tests.pytest_arguments(words) == wanted


def test_quick_runs_the_tests_that_were_chosen(run_tests):
    assert run_tests.pytest_arguments(['--quick', '-v'], [FLOORS]) == ['-m', 'not slow', '-v', FLOORS]


@pytest.mark.parametrize(
    ('changed', 'wanted'),
    [
        (['ddsa_arch/ops/rain.py'], ['tests/ops/test_rain.py', FLOORS]),
        (['ddsa_arch/archs/blocks/norm.py'], ['tests/archs', FLOORS]),  # it has no test of its own
        (['ddsa_arch/comparison/gallery/page/page.js'], ['tests/comparison', FLOORS]),
        (['ddsa_arch/compat.py'], ['tests/test_compat.py', FLOORS]),
        (['ddsa_arch/__init__.py'], [FLOORS]),
        (['tests/ops/test_rain.py', 'tests/ops/test_that_is_gone.py'], ['tests/ops/test_rain.py']),
        (['tests/metrics/conftest.py', 'tests/metrics/test_octave.py'], ['tests/metrics']),
        (['tests/archs/golden/idt.npz'], ['tests/archs']),
        (['options/train/DDSANet_Rain13K.yml', 'setup.py'], ['tests/options', 'tests/scripts']),
        (['scripts/run_tests.py', 'README.md'], ['tests/scripts', 'tests/test_readme.py']),
        (['tests/conftest.py', 'tests/helpers.py', 'datasets/README.md', '.gitignore'], []),  # the core answers
    ],
)
def test_which_tests_look_at_a_file(changed, wanted, run_tests):
    assert run_tests.chosen_tests(changed) == wanted


def test_changed_files_are_those_that_differ_from_upstream_or_the_last_commit(run_tests, tmp_path):
    def git(*words):
        author = ['-c', 'user.name=a', '-c', 'user.email=a@b', '-c', 'commit.gpgsign=false']
        subprocess.run(['git', *author, *words], cwd=tmp_path, check=True, capture_output=True)

    assert run_tests.changed_files(tmp_path) == []  # no checkout
    git('init', '-b', 'work')
    for name in ('a.py', 'b.py', 'c.py', '.gitignore'):
        (tmp_path / name).write_text('ignored.txt\n')
    git('add', '.')
    git('commit', '-m', 'first')
    assert run_tests.changed_files(tmp_path) == []
    git('branch', 'upstream')
    (tmp_path / 'a.py').write_text('staged')
    git('add', 'a.py')
    (tmp_path / 'b.py').unlink()
    for name in ('ü.py', 'ignored.txt'):
        (tmp_path / name).touch()
    assert run_tests.changed_files(tmp_path) == ['a.py', 'b.py', 'ü.py']
    git('commit', '-m', 'second')
    assert run_tests.changed_files(tmp_path) == ['b.py', 'ü.py']
    git('branch', '--set-upstream-to', 'upstream')
    assert run_tests.changed_files(tmp_path) == ['a.py', 'b.py', 'ü.py']


def test_the_tests_run_even_if_a_checker_complains(run_tests, monkeypatch, capsys):
    statuses = {'ruff': 1, 'mypy': 0, 'pytest': 0}
    seen = []

    def hand_over(command, variables):
        seen.append((command[2], variables['OMP_NUM_THREADS']))
        return statuses[command[2]]

    monkeypatch.setattr(run_tests._environment, 'ensure_environment', lambda: 'python')
    monkeypatch.setattr(run_tests._environment, 'hand_over', hand_over)
    assert run_tests.main(['--lint']) == 1
    assert seen == [('ruff', '1'), ('mypy', '1'), ('pytest', '1')]
    assert 'ruff found faults' in capsys.readouterr().err
    statuses.update(ruff=0, mypy=2)
    assert run_tests.main(['--lint']) == 2
    assert capsys.readouterr().err.startswith('Not passed: mypy found faults')
    statuses.update(mypy=0, pytest=1)
    seen.clear()
    assert run_tests.main(['tests/scripts']) == 1
    assert seen == [('pytest', '2')]
    assert '--lf' in capsys.readouterr().err


def test_nothing_runs_after_a_checker_that_the_user_has_stopped(run_tests, monkeypatch, capsys):
    seen = []

    def hand_over(command, variables):
        seen.append(command[2])
        return {'ruff': 1, 'mypy': 130}[command[2]]

    monkeypatch.setattr(run_tests._environment, 'ensure_environment', lambda: 'python')
    monkeypatch.setattr(run_tests._environment, 'hand_over', hand_over)
    assert run_tests.main(['--lint']) == 130
    assert seen == ['ruff', 'mypy']
    assert capsys.readouterr().err == ''
