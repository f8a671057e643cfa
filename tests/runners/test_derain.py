"""``ddsa derain``: every file is derained or named, none stops the others, nothing is lost."""

import os
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from helpers import LONGEST, variables
from PIL import Image
from torch import nn

from ddsa_arch.archs.weights import write_weights
from ddsa_arch.errors import InputError
from ddsa_arch.files.images import read_image
from ddsa_arch.inference.derainer import Derainer
from ddsa_arch.inference.plan import plan
from ddsa_arch.runners import cli
from ddsa_arch.runners.derain import derain_files


@ARCH_REGISTRY.register()
class Dim(nn.Module):
    """Half of everything."""

    size_multiple = 8

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))

    def forward(self, rain):
        return rain * self.factor


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / 'dim.pth'
    write_weights(path, Dim().state_dict(), {'type': 'Dim'}, {})
    return path


@pytest.fixture
def dim(weights):
    return Derainer(weights, device='cpu')


def picture(path, size=(6, 8), mode='RGB', value=100, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.full((size[1], size[0], 3), value, np.uint8)
    values[: size[1] // 2] //= 2
    Image.fromarray(values).convert(mode).save(path, **how)
    return path


def run(*arguments):
    return cli.main(['derain', *map(str, arguments), '--device', 'cpu'])


# --- which files -------------------------------------------------------------------------------------------


def test_folders_are_searched_and_repeated(tmp_path):
    photos = tmp_path / 'photos'
    for name in ('a.png', 'trip/b.jpg', 'trip/day 2/ü.webp', '.hidden/c.png', 'trip/.d.png'):
        picture(photos / name)
    (photos / 'notes.txt').write_text('no image')
    picture(photos / 'out' / 'old.png')
    planned = plan([photos], photos / 'out')
    assert [job.name for job in planned.jobs] == ['a.png', 'trip/b.jpg', 'trip/day 2/ü.webp']
    assert [job.target for job in planned.jobs] == [photos / 'out' / job.name for job in planned.jobs]
    assert planned.refused == []


def test_files_and_patterns_are_taken_once(tmp_path):
    for name in ('a10.png', 'a2.png', 'sub/a3.png'):
        picture(tmp_path / name)
    names = [tmp_path / 'a2.png', str(tmp_path / 'a*.png'), str(tmp_path / '**' / 'a3.png'), tmp_path / 'sub']
    assert [j.name for j in plan(names, tmp_path / 'out').jobs] == ['a2.png', 'a10.png', 'a3.png']


def test_the_format_can_be_chosen(tmp_path):
    planned = plan([picture(tmp_path / 'a.jpg')], tmp_path / 'out', 'png')
    assert planned.jobs[0].target == tmp_path / 'out' / 'a.png'
    with pytest.raises(InputError, match="--format 'gif' is not known; choose one of auto, bmp"):
        plan([tmp_path / 'a.jpg'], tmp_path / 'out', 'gif')


def test_two_results_of_one_name_are_refused(tmp_path):
    one, two = picture(tmp_path / 'one' / 'a.png'), picture(tmp_path / 'two' / 'a.png')
    planned = plan([one, two], tmp_path / 'out')
    assert [job.source for job in planned.jobs] == [one]
    assert planned.refused[0][0] == two
    assert f'the name of that of {one}' in planned.refused[0][1]
    planned = plan([picture(tmp_path / 'b.jpg'), picture(tmp_path / 'b.png')], tmp_path / 'out', 'webp')
    assert len(planned.jobs) == 1


def test_results_that_are_there_stay_unless_overwritten(tmp_path):
    source, there = picture(tmp_path / 'a.png'), picture(tmp_path / 'out' / 'a.png')
    planned = plan([source], tmp_path / 'out')
    assert (planned.jobs, planned.refused) == ([], [])
    assert [job.target for job in planned.there] == [there]
    assert plan([source], tmp_path / 'out', overwrite=True).jobs[0].target == there


def test_an_input_is_never_replaced(tmp_path):
    source = picture(tmp_path / 'a.png')
    planned = plan([source], tmp_path, overwrite=True)
    assert planned.jobs == []
    assert 'which is an input' in planned.refused[0][1]


def test_inputs_that_are_not_there_are_named(tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(InputError, match=r'none.png: no such file or folder'):
        plan([tmp_path / 'none.png'], tmp_path / 'out')
    with pytest.raises(InputError, match=r'no image or video in \S*empty'):
        plan([tmp_path / 'empty'], tmp_path / 'out')
    with pytest.raises(InputError, match='is a file, wanted a folder'):
        plan([picture(tmp_path / 'a.png')], tmp_path / 'a.png')


# --- what becomes of them ----------------------------------------------------------------------------------


@pytest.mark.core
def test_photos_keep_their_kind(tmp_path, dim):
    tags = Image.Exif()
    tags[0x010F] = 'Camera'
    picture(tmp_path / 'in' / 'a.jpg', (40, 24), exif=tags, quality=98)
    picture(tmp_path / 'in' / 'grey.png', mode='L')
    clear = np.full((6, 5, 4), 100, np.uint8)
    Image.fromarray(clear).save(tmp_path / 'in' / 'alpha.webp', lossless=True)
    deep = np.full((9, 7, 3), 40000, np.uint16)
    cv2.imwrite(str(tmp_path / 'in' / 'deep.png'), deep)
    report = derain_files([tmp_path / 'in'], tmp_path / 'out', dim)
    assert report.failed == []
    assert [p.name for p in report.done] == ['a.jpg', 'alpha.webp', 'deep.png', 'grey.png']
    again = derain_files([tmp_path / 'in'], tmp_path / 'out', dim)  # all of them are there already
    assert (again.done, again.failed, len(again.there)) == ([], [], 4)
    assert (cv2.imread(str(tmp_path / 'out' / 'deep.png'), cv2.IMREAD_UNCHANGED) == 20000).all()
    with Image.open(tmp_path / 'out' / 'grey.png') as image:
        assert image.mode == 'L'
        assert np.asarray(image)[-1, -1] == 50
    with Image.open(tmp_path / 'out' / 'alpha.webp') as image:
        assert np.asarray(image)[-1, -1].tolist() == [50, 50, 50, 100]
    with Image.open(tmp_path / 'out' / 'a.jpg') as image:
        assert image.getexif()[0x010F] == 'Camera'
        assert abs(int(np.asarray(image)[-1, -1, 0]) - 50) <= 2


def awkward(folder):
    """Files that people have, and whether they can be derained."""
    rng = np.random.default_rng(0)
    whole = folder / 'plain.png'
    picture(whole, (30, 20))
    good = {
        'one pixel.png': {'size': (1, 1)}, 'row.png': {'size': (5000, 1)}, 'column.png': {'size': (1, 3000)},
        'two.bmp': {'size': (2, 3)}, 'grey.jpg': {'mode': 'L'}, 'grey.png': {'mode': 'L'},
        'alpha.png': {'mode': 'RGBA'}, 'grey alpha.png': {'mode': 'LA'}, 'palette.png': {'mode': 'P'},
        'bits.png': {'mode': '1'}, 'cmyk.jpg': {'mode': 'CMYK'}, 'cmyk.tif': {'mode': 'CMYK'},
        'lab.tif': {'mode': 'LAB'},
        'ycc.jpg': {'mode': 'YCbCr'}, 'progressive.jpg': {'progressive': True, 'size': (64, 64)},
        'interlaced.webp': {'lossless': True}, 'UPPER.PNG': {}, 'two.dots.in.name.jpg': {}, ' spaces .png': {},
        '雨の写真.png': {}, 'smile 🌧.jpg': {}, "quote's \"name\".png": {}, '-dash.png': {}, '%20[1].png': {},
        'deep/er/and/deeper/still.png': {}, 'lzw.tif': {'compression': 'tiff_lzw'}, 'zip.tiff': {
            'compression': 'tiff_deflate'}, 'large.jpg': {'size': (700, 400)},
    }  # fmt: skip
    for name, how in good.items():
        picture(folder / name, **how)
    for orientation in (3, 6):
        tags = Image.Exif()
        tags[0x0112] = orientation
        picture(folder / f'turned {orientation}.jpg', (16, 32), exif=tags)
    cv2.imwrite(str(folder / 'sixteen.png'), rng.integers(0, 65536, (9, 8, 3)).astype(np.uint16))
    cv2.imwrite(str(folder / 'sixteen.tif'), rng.integers(0, 65536, (9, 8)).astype(np.uint16))
    frames = [Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)) for _ in range(2)]
    frames[0].save(folder / 'moving.webp', save_all=True, append_images=frames[1:])
    frames[0].save(folder / 'pages.tif', save_all=True, append_images=frames[1:])
    whole.rename(folder / 'really a png.jpg')
    data = (folder / 'large.jpg').read_bytes()
    bad = {
        'empty.png': b'', 'text.png': b'no picture', 'cut.jpg': data[: len(data) // 2],
        'cut.png': (folder / 'alpha.png').read_bytes()[:60], 'zeros.bmp': bytes(100), 'web page.webp': b'<html></html>',
        'video.mp4': b'no video',
    }  # fmt: skip
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    floats = Image.fromarray(rng.random((8, 8), np.float32) * 255)
    floats.save(folder / 'floats.tif')
    (folder / 'link to nothing.png').symlink_to(folder / 'gone')
    (folder / 'folder.png').mkdir()
    count = sum(p.is_file() or p.is_symlink() for p in folder.rglob('*'))
    return count, {*bad, 'floats.tif', 'link to nothing.png'}


def test_forty_awkward_files_are_derained_or_named(tmp_path, weights, capsys):
    count, bad = awkward(tmp_path / 'in')
    assert count >= 40
    before = {p: p.read_bytes() for p in (tmp_path / 'in').rglob('*') if p.is_file()}
    assert run(tmp_path / 'in', '-o', tmp_path / 'out', '--weights', weights) == 1
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == f'{count - len(bad)} derained in {tmp_path / "out"}'
    assert f'{len(bad)} not derained:' in told.err
    for name in bad:
        assert sum(f'/{name}: ' in line for line in told.err.splitlines()) == 1, name
        assert not (tmp_path / 'out' / name).exists()
    assert before == {p: p.read_bytes() for p in (tmp_path / 'in').rglob('*') if p.is_file()}
    written = {p.relative_to(tmp_path / 'out') for p in (tmp_path / 'out').rglob('*') if p.is_file()}
    assert written == {p.relative_to(tmp_path / 'in') for p in before if p.name not in bad}
    for name in written:
        with Image.open(tmp_path / 'in' / name) as one, Image.open(tmp_path / 'out' / name) as two:
            assert sorted(one.size) == sorted(two.size), name
            assert one.format == two.format or name.name == 'really a png.jpg', name


def test_a_file_that_cannot_be_written_is_named(tmp_path, dim):
    picture(tmp_path / 'in' / 'a.png')
    picture(tmp_path / 'in' / 'sub' / 'b.png')
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'sub').write_text('a file where a folder should be')
    report = derain_files([tmp_path / 'in'], tmp_path / 'out', dim)
    assert [p.name for p in report.done] == ['a.png']
    assert report.failed[0][0].name == 'b.png'
    assert 'sub' in report.failed[0][1]


@pytest.fixture
def locked(tmp_path):
    """A folder that this user may neither look into nor write into."""
    folder = tmp_path / 'locked'
    folder.mkdir(mode=0o000)
    if os.access(folder, os.W_OK):
        pytest.skip('rights do not hold for this user')
    yield folder
    folder.chmod(0o700)


def test_a_folder_that_cannot_be_written_is_named_at_once(tmp_path, dim, locked):
    picture(tmp_path / 'a.png')
    for out in (locked, locked / 'a' / 'b'):
        with pytest.raises(InputError, match=r'locked cannot be written into'):
            derain_files([tmp_path / 'a.png'], out, dim)


def test_a_folder_that_cannot_be_looked_into_is_named(tmp_path, dim, locked):
    picture(tmp_path / 'a.png')
    report = derain_files([tmp_path], tmp_path / 'out', dim)
    assert [p.name for p in report.done] == ['a.png']
    assert report.failed == [(locked, 'cannot be looked into (Permission denied)')]
    with pytest.raises(InputError, match=r'a\.png: cannot be looked at \(Permission denied\)'):
        derain_files([locked / 'a.png'], tmp_path / 'out', dim)


def test_names_that_are_not_of_utf_8_are_printed(tmp_path, weights, capsys):
    name = os.fsencode(tmp_path / 'in') + b'/bad \xff name.png'
    (tmp_path / 'in').mkdir()
    try:
        with open(name, 'wb') as file:
            file.write(b'no picture')
    except OSError:
        pytest.skip('the file system takes no such names')
    picture(tmp_path / 'in' / 'good.png')
    assert run(tmp_path / 'in', '-o', tmp_path / 'out', '--weights', weights) == 1
    assert 'name.png' in capsys.readouterr().err
    assert (tmp_path / 'out' / 'good.png').is_file()


def test_before_and_after_are_shown(tmp_path, weights, capsys):
    picture(tmp_path / 'a.png', (40, 30))
    assert run(tmp_path / 'a.png', '-o', tmp_path / 'out', '--weights', weights, '--compare') == 0
    shown = read_image(tmp_path / 'out' / 'compare' / 'a.png.jpg')
    assert shown.shape[1] >= 80
    assert abs(int(shown[-1, 0, 0]) - 100) <= 3
    assert abs(int(shown[-1, -1, 0]) - 50) <= 3
    assert 'before and after in' in capsys.readouterr().out.splitlines()[-1]


def test_a_video_is_derained(tmp_path, dim):
    writer = cv2.VideoWriter(str(tmp_path / 'a.mp4'), cv2.VideoWriter.fourcc(*'mp4v'), 10, (64, 48))
    for value in (40, 80, 120, 160):
        writer.write(np.full((48, 64, 3), value, np.uint8))
    writer.release()
    (tmp_path / 'b.mp4').write_bytes(b'no video')
    report = derain_files([str(tmp_path / '*.mp4')], tmp_path / 'out', dim, compare=True)
    assert [p.name for p in report.done] == ['a.mp4']
    assert 'no video that can be read' in report.failed[0][1]
    frames = cv2.VideoCapture(str(tmp_path / 'out' / 'a.mp4'))
    for value in (40, 80, 120, 160):
        read, frame = frames.read()
        assert read
        assert frame.shape == (48, 64, 3)
        assert abs(float(frame.mean()) - value / 2) <= 6
    assert not frames.read()[0]
    assert (tmp_path / 'out' / 'compare' / 'a.mp4.jpg').is_file()


def test_processes_share_the_files(tmp_path, dim):
    for index in range(5):
        picture(tmp_path / 'in' / f'{index}.png')
    (tmp_path / 'in' / 'broken.png').write_bytes(b'')
    done = [derain_files([tmp_path / 'in'], tmp_path / f'out{r}', dim, shard=(r, 2)).done for r in range(2)]
    assert [[p.name for p in part] for part in done] == [['0.png', '2.png', '4.png'], ['1.png', '3.png']]


def test_processes_of_torchrun_wait_for_each_other(tmp_path):
    """The second has a broken file and is done at once; torchrun would stop the first if it told so then."""
    for index in range(5):
        picture(tmp_path / 'in' / f'{index}.png', (120, 90))
    for index in (1, 3):
        (tmp_path / 'in' / f'{index}.png').write_bytes(b'')
    launch = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', '--no-python']
    command = [sys.executable, '-c', 'from ddsa_arch.runners.cli import main; raise SystemExit(main())', 'derain']
    done = subprocess.run(
        [*launch, *command, tmp_path / 'in', '-o', tmp_path / 'out', '--device', 'cpu'],
        env=variables(), capture_output=True, text=True, timeout=2 * LONGEST,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout.splitlines() == [f'3 derained in {tmp_path / "out"}']
    assert '2 not derained:' in done.stderr
    assert done.stderr.count('empty (0 bytes)') == 2
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['0.png', '2.png', '4.png']


def test_the_bar_moves_within_a_large_image(tmp_path, dim, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
    monkeypatch.setattr(Dim, 'forward', lambda self, rain: (time.sleep(0.11), rain * self.factor)[1])
    dim.tile = 640
    for name in 'ab':
        picture(tmp_path / 'in' / f'{name}.png', (1100, 1100))
    derain_files([tmp_path / 'in'], tmp_path / 'out', dim)
    shown = capsys.readouterr().err
    for done in ('0.25', '0.5', '1.75', '2'):  # of 4 tiles each
        assert f'| {done}/2 files [' in shown


def test_nothing_is_half_written_when_stopped(tmp_path, dim, monkeypatch):
    picture(tmp_path / 'a.png')

    def stopped(*a):
        raise KeyboardInterrupt

    monkeypatch.setattr('os.replace', stopped)
    with pytest.raises(KeyboardInterrupt):
        derain_files([tmp_path / 'a.png'], tmp_path / 'out', dim)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--weights', 'none.pth'], 'no file none.pth'),
        (['--threads', '0'], '--threads 0: wanted a whole number'),
        (['--tile', '7'], 'tile: 7; wanted auto, or a multiple of 8'),
        (['--network', 'DDSANett'], "no network 'DDSANett'; did you mean 'DDSANet'?"),
        (['--imports', 'no_such_module'], 'no_such_module cannot be imported'),
    ],
)
def test_what_cannot_be_used_is_named_before_anything_is_written(tmp_path, weights, capsys, arguments, message):
    picture(tmp_path / 'a.png')
    assert run(tmp_path / 'a.png', '-o', tmp_path / 'out', '--weights', weights, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_networks_of_ones_own_are_imported(tmp_path):
    (tmp_path / 'own_arch.py').write_text(
        'import torch\nfrom basicsr.utils.registry import ARCH_REGISTRY\n\n\n@ARCH_REGISTRY.register()\n'
        'class Own(torch.nn.Conv2d):\n    def __init__(self):\n        super().__init__(3, 3, 1)\n'
    )
    net = nn.Conv2d(3, 3, 1)
    write_weights(tmp_path / 'own.safetensors', net.state_dict(), {'type': 'Own'}, {})
    picture(tmp_path / 'a.png')
    command = [sys.executable, '-m', 'ddsa_arch.runners.cli', 'derain', 'a.png', '-o', 'out', '--weights']
    command += ['own.safetensors', '--device', 'cpu']
    environment = variables()
    failed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert failed.returncode == 2
    assert "no network 'Own'" in failed.stderr
    subprocess.run([*command, '--imports', 'own_arch'], cwd=tmp_path, check=True, env=environment)
    assert (tmp_path / 'out' / 'a.png').is_file()
