"""The command where packages are missing, and BasicSR's build."""

import importlib
import io
import signal
import subprocess
import sys
import tarfile

import pytest


@pytest.fixture
def start(monkeypatch, repository):
    monkeypatch.syspath_prepend(str(repository / 'scripts'))
    importlib.import_module('ddsa_start.toolbox')
    return importlib.import_module('ddsa_start')


def hide(monkeypatch, start, *modules):
    find = importlib.util.find_spec
    monkeypatch.setattr(start.toolbox.importlib.util, 'find_spec', lambda name: None if name in modules else find(name))


@pytest.mark.parametrize(
    ('module', 'sentence'),
    [
        ('basicsr', 'basicsr is not installed: ddsa doctor --repair'),
        ('torchvision', 'torchvision is not installed: pip install torchvision "torch=='),
        ('cv2', 'opencv-python is not installed: pip install opencv-python'),
        ('av', 'av is not installed: pip install "av<19"'),
    ],
)
def test_what_is_missing_is_named_with_what_installs_it(module, sentence, start, monkeypatch, capsys):
    hide(monkeypatch, start, module)
    assert start.main(['doctor']) == 2
    printed = capsys.readouterr().out
    assert printed.startswith('python ')
    assert sentence in printed
    assert start.main(['derain', 'photo.jpg']) == 2
    assert capsys.readouterr().err.startswith(f'error: {sentence}')


def test_an_old_python_is_told(start, monkeypatch, capsys):
    monkeypatch.setattr(start.toolbox, 'python_problem', lambda: 'Python 3.10 or newer is needed')
    assert start.main([]) == 2
    assert capsys.readouterr().err == 'error: Python 3.10 or newer is needed\n'


def test_with_all_packages_the_command_is_that_of_the_package(start, capsys):
    assert start.main(['derane']) == 2
    assert "no verb 'derane'; did you mean 'derain'" in capsys.readouterr().err
    assert start.main(['--help']) == 0


def test_repair_installs_what_is_missing_and_keeps_torch(start, monkeypatch, tmp_path, capsys):
    hide(monkeypatch, start, 'basicsr', 'torchvision')
    commands = []
    monkeypatch.setattr('subprocess.check_call', lambda command, env: commands.append(command))
    assert start.main(['doctor', '--repair']) == 0
    assert commands[0][3:5] == ['install', 'torchvision']
    assert commands[0][5].startswith('torch==')
    assert [command[3] for command in commands[1:3]] == ['download', 'install']
    assert commands[-1][1:] == ['-c', 'import ddsa_arch']

    def fail(command, env):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr('subprocess.check_call', fail)
    assert start.main(['doctor', '--repair']) == 2
    assert 'failed; its last lines say why' in capsys.readouterr().err


def test_basicsr_is_installed_with_tensorboard_in_place_of_its_nightly(start, tmp_path):
    def run(title, command, **environment):
        if 'download' in command:  # plays pip
            with tarfile.open(tmp_path / 'basicsr-1.4.2.tar.gz', 'w:gz') as tar:
                content = b'addict\ntb-nightly\ntorch>=1.7\n'
                member = tarfile.TarInfo('basicsr-1.4.2/requirements.txt')
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        assert ('PYTHONPATH' in environment) == (sys.version_info >= (3, 13))

    start.toolbox.install_basicsr(run, sys.executable, tmp_path)
    needs = tmp_path / 'basicsr-1.4.2' / 'requirements.txt'
    assert needs.read_text().split() == ['addict', 'tensorboard', 'torch>=1.7']


def test_an_interrupt_while_packages_are_imported_leaves_no_traceback(repository):
    code = (
        'import os, signal, ddsa_start\n'
        'signal.signal(signal.SIGINT, signal.default_int_handler)\n'
        'ddsa_start.find_problems = lambda: os.kill(os.getpid(), signal.SIGINT)\n'
        "ddsa_start.main(['train'])\n"
    )
    ran = subprocess.run([sys.executable, '-c', code], cwd=repository / 'scripts', capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (130, 'interrupted\n')


def test_the_handler_of_interrupts_is_put_back(start):
    before = signal.getsignal(signal.SIGINT)
    with start.ending_at_once():
        pass
    assert signal.getsignal(signal.SIGINT) == before
