"""One process at a time writes into a folder; a killed one keeps nobody out."""

import multiprocessing
import os
import signal
import time

import pytest

from ddsa_arch.errors import InputError
from ddsa_arch.files.locks import only_writer


def hold(folder, inside, held, end):
    with only_writer(folder, 'wait', inside):
        held.set()
        end.wait(300)


@pytest.fixture
def holder(tmp_path):
    context = multiprocessing.get_context('fork')
    started = []

    def start(inside=False):
        held, end = context.Event(), context.Event()
        process = context.Process(target=hold, args=(tmp_path / 'out', inside, held, end))
        process.start()
        assert held.wait(300)
        started.append(process)
        return process, end

    yield start
    for process in started:  # an event would wait for those that were killed while they waited for it
        process.kill()
        process.join()


@pytest.mark.parametrize('inside', [False, True])
def test_a_second_process_is_told_who_writes(holder, tmp_path, inside):
    process, end = holder(inside)
    with pytest.raises(InputError) as caught, only_writer(tmp_path / 'out', 'give another -o', inside):
        pass
    message = str(caught.value)
    assert message.startswith(f'{tmp_path / "out"} is in use by process {process.pid} on ')
    assert message.endswith('; wait for it, or give another -o')
    end.set()
    process.join(300)
    with only_writer(tmp_path / 'out', 'give another -o', inside):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_keeps_nobody_out(holder, tmp_path):
    process, _ = holder()
    os.kill(process.pid, signal.SIGKILL)
    process.join(300)
    assert (tmp_path / '.out.lock').exists()
    with only_writer(tmp_path / 'out', 'wait'):
        assert str(os.getpid()) in (tmp_path / '.out.lock').read_text()
    assert list(tmp_path.iterdir()) == []


def test_a_forked_child_that_outlives_its_parent_does_not_hold_the_lock(tmp_path):
    """Loading processes are forked, and end some seconds after a killed training."""
    parent = os.fork()
    if parent == 0:
        with only_writer(tmp_path / 'out', 'wait'):
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            (tmp_path / 'child').write_text(str(child))
            os.rename(tmp_path / 'child', tmp_path / 'pid')
            time.sleep(300)
        os._exit(0)
    while not (tmp_path / 'pid').exists():
        time.sleep(0.01)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    try:
        with only_writer(tmp_path / 'out', 'wait'):
            pass
    finally:
        os.kill(int((tmp_path / 'pid').read_text()), signal.SIGKILL)


def test_the_folder_may_be_renamed_and_errors_pass_through(tmp_path):
    (tmp_path / 'out').mkdir()

    def move_and_fail():
        with only_writer(tmp_path / 'out', 'wait'):
            (tmp_path / 'out').rename(tmp_path / 'moved')
            raise OSError(28, 'disk full')

    with pytest.raises(OSError, match='full'):
        move_and_fail()
    assert [p.name for p in tmp_path.iterdir()] == ['moved']


def test_a_disk_that_cannot_be_written_has_no_lock(tmp_path):
    (tmp_path / 'file').touch()
    with only_writer(tmp_path / 'file' / 'out', 'wait'):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ['file']
