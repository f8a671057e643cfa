"""``ddsa derain`` over folders as people have them: what is no photo, what is there already, names and links."""

import os
import socket

import numpy as np
import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from PIL import Image
from torch import nn

from ddsa_arch.archs.weights import write_weights
from ddsa_arch.runners import cli


@ARCH_REGISTRY.register()
class Dark(nn.Module):
    """Black, whatever comes."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.zeros(1))

    def forward(self, rain):
        return rain * self.factor


@pytest.fixture
def derain(tmp_path, capsys):
    """Run the command; return its status and what it told, on both channels."""
    write_weights(tmp_path / 'dark.pth', Dark().state_dict(), {'type': 'Dark'}, {})

    def run(*words):
        status = cli.main(['derain', *map(str, words), '--weights', str(tmp_path / 'dark.pth'), '--device', 'cpu'])
        told = capsys.readouterr()
        return status, told.out.splitlines(), told.err.splitlines()

    return run


def photo(path, value=100, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8, 3), value, np.uint8)).save(path, **how)
    return path


def test_other_files_are_counted(tmp_path, derain):
    photo(tmp_path / 'in' / 'a.png')
    for name in ('a.txt', 'b.TXT', 'c.pdf', 'Makefile', '.hidden', 'sub/d.txt'):
        (tmp_path / 'in' / name).parent.mkdir(exist_ok=True)
        (tmp_path / 'in' / name).write_text('no photo')
    status, out, _ = derain(tmp_path / 'in', '-o', tmp_path / 'out')
    assert status == 0
    counted = '5 other files left alone (3 .txt, 1 without a suffix, 1 .pdf)'
    assert out == [counted, f'1 derained in {tmp_path / "out"}']
    (tmp_path / 'in' / 'a.png').unlink()
    status, _, err = derain(tmp_path / 'in', '-o', tmp_path / 'out')
    assert status == 2
    assert f'; {counted}' in err[-1]


def test_what_is_there_counts_as_done(tmp_path, derain):
    for name in 'ab':
        photo(tmp_path / 'in' / f'{name}.png')
    assert derain(tmp_path / 'in', '-o', tmp_path / 'out')[0] == 0
    Image.new('RGB', (8, 6), (1, 2, 3)).save(tmp_path / 'out' / 'a.png')
    photo(tmp_path / 'in' / 'c.png')
    status, out, err = derain(tmp_path / 'in', '-o', tmp_path / 'out')
    assert (status, err) == (0, [])
    there = '{} there already in ' + str(tmp_path / 'out') + ' (--overwrite does them again)'
    assert out == [there.format(2), f'1 derained in {tmp_path / "out"}']
    status, out, _ = derain(tmp_path / 'in', '-o', tmp_path / 'out')
    assert (status, out) == (0, [there.format(3), f'0 derained in {tmp_path / "out"}'])
    assert Image.open(tmp_path / 'out' / 'a.png').getpixel((0, 0)) == (1, 2, 3)
    status, out, _ = derain(tmp_path / 'in', '-o', tmp_path / 'out', '--overwrite')
    assert (status, out) == (0, [f'3 derained in {tmp_path / "out"}'])
    assert Image.open(tmp_path / 'out' / 'a.png').getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='no pipes')
def test_what_is_no_file_is_never_waited_for(tmp_path, derain):
    photo(tmp_path / 'in' / 'a.png')
    os.mkfifo(tmp_path / 'in' / 'pipe.png')
    os.mkfifo(tmp_path / 'in' / 'pipe.mp4')
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / 's.png'))
        status, out, _ = derain(tmp_path / 'in', '-o', tmp_path / 'out')
        assert (status, out[0]) == (0, '2 other files left alone (2 pipes or devices)')
        named = [tmp_path / 'in' / 'pipe.png', tmp_path / 'in' / 'pipe.mp4', tmp_path / 's.png', '/dev/null']
        status, _, err = derain(*named, '-o', tmp_path / 'out2')
    assert status == 1
    assert sum('no regular file, such as a pipe or a device' in line for line in err) == 4


def test_links_are_followed_to_files_and_never_in_a_circle(tmp_path, derain):
    inside = tmp_path / 'in'
    photo(inside / 'a.png')
    photo(tmp_path / 'elsewhere' / 'b.png')
    (inside / 'link.png').symlink_to(tmp_path / 'elsewhere' / 'b.png')
    (inside / 'again').symlink_to(inside)
    (inside / 'circle.png').symlink_to(inside / 'circle2.png')
    (inside / 'circle2.png').symlink_to(inside / 'circle.png')
    (inside / 'nothing.png').symlink_to(inside / 'gone.png')
    status, out, err = derain(inside, '-o', tmp_path / 'out')
    assert status == 1
    assert out == ['1 other file left alone (1 links to folders)', f'2 derained in {tmp_path / "out"}']
    told = sorted(line.split(': ')[0].rsplit('/')[-1] for line in err[1:])
    assert told == ['circle.png', 'circle2.png', 'nothing.png']
    status, _, err = derain(inside / 'circle.png', '-o', tmp_path / 'out2')
    assert status in (1, 2)
    assert len([line for line in err if 'circle.png' in line]) == 1


@pytest.mark.parametrize('name', ['x' * 251 + '.png', 'é' * 125 + 'x.png', 'two\nlines.png', 'tab\there\x1b[0m.PNG'])
def test_names_of_all_kinds(tmp_path, derain, name):
    try:
        photo(tmp_path / 'in' / 'a.png').rename(tmp_path / 'in' / name)
    except OSError:
        pytest.skip('the file system takes no such names')
    (tmp_path / 'in' / f'b{name[1:]}').write_bytes(b'')
    status, out, err = derain(tmp_path / 'in', '-o', tmp_path / 'out', '--compare')
    assert status == 1
    assert out[0] == f'1 derained in {tmp_path / "out"}'
    assert len(err) == 2  # the title, and one line for the empty file
    assert 'empty (0 bytes)' in err[1]
    assert all(letter.isprintable() for letter in err[1])
    assert (tmp_path / 'out' / name).is_file()
    assert len(list((tmp_path / 'out' / 'compare').iterdir())) == 1


def test_a_name_longer_than_any_is_refused(tmp_path, derain):
    status, _, err = derain(tmp_path / ('x' * 300 + '.png'), '-o', tmp_path / 'out')
    assert status == 2
    assert len(err) == 1


def test_the_strength_is_chosen(tmp_path, derain):
    photo(tmp_path / 'a.png')
    for strength, value in (('0', 100), ('0.25', 75), ('1', 0)):
        out = tmp_path / f'out{strength}'
        assert derain(tmp_path / 'a.png', '-o', out, '--strength', strength)[0] == 0
        assert (np.asarray(Image.open(out / 'a.png')) == value).all()
    for strength in ('1.5', '-1', 'nan'):
        status, _, err = derain(tmp_path / 'a.png', '-o', tmp_path / 'none', f'--strength={strength}')
        assert status == 2
        assert len(err) == 1
        assert 'strength: ' in err[0]
    assert not (tmp_path / 'none').exists()


@pytest.mark.parametrize('name', ['a.JPG', 'a.Jpeg', 'a.jfif', 'a.jpe', 'a.TIF', 'a.WebP'])
def test_suffixes_of_any_case(tmp_path, derain, name):
    photo(tmp_path / 'in' / name, format={'t': 'TIFF', 'w': 'WEBP'}.get(name[2].lower(), 'JPEG'))
    status, _, err = derain(tmp_path / 'in', '-o', tmp_path / 'out')
    assert (status, err) == (0, [])
    assert [path.name for path in (tmp_path / 'out').iterdir()] == [name]
