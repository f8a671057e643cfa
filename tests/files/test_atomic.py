import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from helpers import names

from ddsa_arch.errors import InputError
from ddsa_arch.files.atomic import atomic_folder, atomic_path, sweep, write_json, write_text

Usage = namedtuple('Usage', 'total used free')


def test_file_appears_when_the_block_ends_well(tmp_path):
    path = tmp_path / 'new' / 'deep' / 'weights.pth'
    with atomic_path(path) as part:
        part.write_bytes(b'1')
        assert part.parent == path.parent
        assert not path.exists()
    assert path.read_bytes() == b'1'
    assert names(path.parent) == ['weights.pth']


@pytest.mark.parametrize('name', ['x' * 255, '雨' * 85, 'x' * 245 + '.mp4'])
def test_the_longest_names_are_written(tmp_path, name):
    with atomic_path(tmp_path / name) as part:
        part.write_bytes(b'1')
        (tmp_path / 'another').touch()
    assert (tmp_path / name).read_bytes() == b'1'
    with atomic_folder(tmp_path / 'in' / name) as part:
        (part / 'a').touch()
    assert [path.name for path in (tmp_path / 'in').iterdir()] == [name]


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
def test_failing_block_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / 'a.txt'
    path.write_text('old', encoding='utf-8')

    def write_and_fail():
        with atomic_path(path) as part:
            part.write_text('half', encoding='utf-8')
            raise error

    with pytest.raises(error):
        write_and_fail()
    assert path.read_text(encoding='utf-8') == 'old'
    assert names(tmp_path) == ['a.txt']


def test_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('old', encoding='utf-8')
    with pytest.raises(FileNotFoundError), atomic_path(path):
        pass
    assert path.read_text(encoding='utf-8') == 'old'


def test_folder_in_the_place_of_the_file_is_an_error_and_stays(tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / 'inside').touch()
    with pytest.raises(OSError, match='a'):
        write_text(tmp_path / 'a', 'text')
    assert names(tmp_path) == ['a']
    assert names(tmp_path / 'a') == ['inside']


@pytest.mark.skipif(sys.platform == 'win32', reason='no fork')
def test_killed_writer_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / 'a.txt'
    write_text(path, 'old')

    def write_and_die():
        with atomic_path(path) as part:
            part.write_text('half', encoding='utf-8')
            os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context('fork').Process(target=write_and_die)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert path.read_text(encoding='utf-8') == 'old'
    write_text(path, 'new')
    assert path.read_text(encoding='utf-8') == 'new'


def test_text_is_utf8_whatever_the_locale(tmp_path):
    write_text(tmp_path / 'a.txt', 'Zürich 雨')
    assert (tmp_path / 'a.txt').read_bytes() == 'Zürich 雨'.encode()


def test_json_is_read_back_and_readable(tmp_path):
    value = {'set': '雨', 'psnr': [31.5, 2], 'path': Path('a/b')}
    write_json(tmp_path / 'a.json', value)
    text = (tmp_path / 'a.json').read_text(encoding='utf-8')
    assert json.loads(text) == {'set': '雨', 'psnr': [31.5, 2], 'path': str(Path('a/b'))}
    assert '雨' in text
    assert text.endswith('}\n')


def test_value_that_json_cannot_hold_leaves_the_old_file(tmp_path):
    write_json(tmp_path / 'a.json', 1)
    loop = []
    loop.append(loop)
    with pytest.raises(ValueError, match='Circular'):
        write_json(tmp_path / 'a.json', loop)
    assert json.loads((tmp_path / 'a.json').read_text(encoding='utf-8')) == 1
    assert names(tmp_path) == ['a.json']


def test_a_folder_appears_when_the_block_ends_well_and_replaces_an_older_one(tmp_path):
    path = tmp_path / 'new' / 'results'
    for content in ('1', '2'):
        with atomic_folder(path) as part:
            (part / f'{content}.txt').write_text(content)
            assert part.parent == path.parent
            assert path.exists() == (content == '2')
        assert names(path) == [f'{content}.txt']
    assert names(path.parent) == ['results']


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
def test_a_failing_block_leaves_the_old_folder_and_nothing_else(tmp_path, error):
    path = tmp_path / 'results'
    path.mkdir()
    (path / 'old.txt').touch()

    def write_and_fail():
        with atomic_folder(path) as part:
            (part / 'new.txt').touch()
            raise error

    with pytest.raises(error):
        write_and_fail()
    assert names(tmp_path) == ['results']
    assert names(path) == ['old.txt']


def test_an_old_folder_comes_back_when_the_new_one_cannot_take_its_name(tmp_path):
    path = tmp_path / 'results'
    path.mkdir()
    (path / 'old.txt').touch()
    with pytest.raises(FileNotFoundError), atomic_folder(path) as part:
        part.rmdir()
    assert names(tmp_path) == ['results']
    assert names(path) == ['old.txt']


@pytest.fixture
def dead_process():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, '-c', ''])
    process.wait()
    return process.pid


def test_what_killed_processes_left_is_swept(tmp_path, dead_process):
    alive = os.getpid()
    for name in (f'a.png.{dead_process}.part', f'clip.mp4.{dead_process}.part.mp4', f'b.png.{alive}.part',
                 'x.lmdb.part', 'mine.part', 'notes.123'):  # fmt: skip
        (tmp_path / name).touch()
    (tmp_path / f'net.onnx.{dead_process}.made.part').mkdir()
    (tmp_path / f'page.{dead_process}.old.part').mkdir()
    (tmp_path / f'page.{dead_process}.old.part' / 'kept').touch()
    (tmp_path / 'deep').mkdir()
    (tmp_path / 'deep' / f'c.png.{dead_process}.part').touch()
    sweep(tmp_path, 'a.png')
    assert not (tmp_path / f'a.png.{dead_process}.part').exists()
    assert (tmp_path / f'clip.mp4.{dead_process}.part.mp4').exists()
    sweep(tmp_path, deep=True)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob('*')}
    assert left == {f'b.png.{alive}.part', 'x.lmdb.part', 'mine.part', 'notes.123', 'deep', 'page', 'page/kept'}


def test_what_was_being_replaced_stays_gone_once_the_new_one_is_there(tmp_path, dead_process):
    (tmp_path / 'page').mkdir()
    (tmp_path / f'page.{dead_process}.old.part').mkdir()
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['page']


def _fill(path, number):
    path.write_text('half', encoding='utf-8')
    raise OSError(number, os.strerror(number))


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    (tmp_path / 'a.txt').write_text('old', encoding='utf-8')
    for number in (errno.ENOSPC, errno.EDQUOT):
        with (
            pytest.raises(InputError, match=f'the disk of {tmp_path} is full'),
            atomic_path(tmp_path / 'a.txt') as part,
        ):
            _fill(part, number)
    with pytest.raises(InputError, match='is full'), atomic_folder(tmp_path / 'b') as part:
        raise OSError(errno.ENOSPC, 'No space left on device')
    assert names(tmp_path) == ['a.txt']
    assert (tmp_path / 'a.txt').read_text(encoding='utf-8') == 'old'


def test_a_writer_of_torch_that_fails_is_a_full_disk_only_where_there_is_no_room(tmp_path, monkeypatch):
    failure = RuntimeError('[enforce fail at inline_container.cc:672] . unexpected pos 640 vs 540')
    with pytest.raises(RuntimeError, match='unexpected pos'), atomic_path(tmp_path / 'a.pth'):
        raise failure
    monkeypatch.setattr('shutil.disk_usage', lambda folder: Usage(2**21, 2**21, 0))
    with pytest.raises(InputError, match='is full'), atomic_path(tmp_path / 'a.pth'):
        raise failure
    with pytest.raises(RuntimeError, match='shapes'), atomic_path(tmp_path / 'a.pth'):
        raise RuntimeError('shapes differ')
