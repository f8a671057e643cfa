"""Videos through a network: colours arrive right, what it changes arrives alone, and nothing is half-made."""

import os
import resource
import threading
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn
from video_files import fill, grey, make_video, told

from ddsa_arch.archs.weights import write_weights
from ddsa_arch.errors import InputError
from ddsa_arch.inference.derainer import Derainer
from ddsa_arch.inference.videos import derain_video
from ddsa_arch.runners.derain import derain_files, main

# red, green, blue of 8 bits as Y, Cb, Cr: the 100 % colour bars of ITU-R BT.601 and BT.709, and those of BT.2020
BARS = {
    6: [(81, 90, 240), (145, 54, 34), (41, 240, 110)],
    1: [(63, 102, 240), (173, 42, 26), (32, 240, 118)],
    9: [(74, 97, 240), (164, 47, 25), (29, 240, 119)],
}


@ARCH_REGISTRY.register()
class Dimmed(nn.Module):
    """A part of everything; all of it if the factor is 1."""

    size_multiple = 8

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(factor)))

    def forward(self, rain):
        return rain * self.factor


def derainer(folder, factor=1.0):
    path = folder / f'{factor}.pth'
    write_weights(path, Dimmed(factor).state_dict(), {'type': 'Dimmed'}, {})
    return Derainer(path, device='cpu')


@pytest.fixture
def same(tmp_path_factory):
    return derainer(tmp_path_factory.mktemp('weights'))


@pytest.mark.parametrize('matrix', list(BARS))
@pytest.mark.parametrize('index', [0, 1, 2])
def test_the_network_sees_the_right_colours(tmp_path, same, matrix, index):
    source = make_video(tmp_path / 'a.mp4', values=BARS[matrix][index], frames=2, tags=(matrix, matrix, matrix, 1))
    seen = []
    derain_video(same, source, tmp_path / 'b.mp4', show=lambda rainy, _: seen.append(rainy))
    assert np.abs(seen[0] - np.eye(3)[index]).max() < 0.025


@pytest.mark.parametrize('matrix', [6, 1, 9])
@pytest.mark.parametrize('range_', [1, 2], ids=['tv', 'pc'])
@pytest.mark.parametrize(
    ('name', 'codec', 'pixels'),
    [('a.mp4', 'libx264', 'yuv420p'), ('a.mov', 'libx265', 'yuv420p10le'), ('a.webm', 'libvpx-vp9', 'yuv420p')],
)
def test_solid_colours_come_back(tmp_path, same, matrix, range_, name, codec, pixels):
    depth = 10 if '10' in pixels else 8
    options = {'x265-params': 'log-level=none'} if codec == 'libx265' else {}
    values = [v << (depth - 8) for v in (120, 60, 200)]
    tags = (matrix, matrix, {9: 14}.get(matrix, matrix), range_)  # BT.2020's curve has another number
    source = make_video(tmp_path / name, codec, pixels, 3, values=values, tags=tags, options=options)
    derain_video(same, source, tmp_path / f'b{name}')
    before, after = told(source), told(tmp_path / f'b{name}')
    assert after['tags'][0] == matrix
    for one, other in zip(before['frames'], after['frames'], strict=True):
        colours = [frame.to_ndarray(format='rgb24').astype(int) for frame in (one, other)]
        assert np.abs(colours[0] - colours[1]).max() <= 2


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.webm', 'a.ts'])
def test_what_the_network_changes_arrives(tmp_path, name):
    codec = 'libvpx-vp9' if name == 'a.webm' else 'libx264'
    source = make_video(tmp_path / name, codec, values=(116, 128, 128), frames=4, tags=(1, 1, 1, 1))
    result = derain_video(derainer(tmp_path, 0.5), source, tmp_path / f'b{name}')
    assert (result.frames, result.notes, result.cut_off) == (4, [], None)
    assert grey(tmp_path / f'b{name}') == pytest.approx([16 + 50] * 4, abs=1)  # half of 100 above black


def test_depth_is_not_lost_on_the_way(tmp_path):
    values = (500, 512, 512)  # 109 above black, in 10 bits
    source = make_video(tmp_path / 'a.mkv', 'ffv1', 'yuv420p10le', 2, values=values)
    derain_video(derainer(tmp_path, 0.99), source, tmp_path / 'b.mkv')
    wanted = round(64 + 0.99 * (500 - 64))
    assert grey(tmp_path / 'b.mkv') == [wanted / 4] * 2


def test_the_network_sees_pictures_upright(tmp_path, same):
    def turned(_, stream):
        stream.set_display_rotation(90)

    source = make_video(tmp_path / 'a.mp4', frames=2, before=turned)
    seen = []
    derain_video(same, source, tmp_path / 'b.mp4', show=lambda rainy, derained: seen.extend([rainy, derained]))
    stored = told(source)['frames'][1].to_ndarray(format='rgb24') / 255
    assert seen[0].shape == seen[1].shape == (64, 48, 3)
    assert np.abs(seen[0] - np.rot90(stored, 1)).mean() < 0.02  # a positive turn is to the left
    after = told(tmp_path / 'b.mp4')
    assert (after['size'], after['rotation']) == ((64, 48), 90)
    assert grey(tmp_path / 'b.mp4') == pytest.approx(grey(source), abs=0.5)


def test_steady_takes_out_what_flickers(tmp_path, same):
    """Frames of one grey, one of which is a little brighter."""
    source = tmp_path / 'a.mkv'
    with av.open(str(source), 'w') as out:
        stream = out.add_stream('ffv1', rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        for index in range(6):
            frame = av.VideoFrame(64, 48, 'yuv420p')
            fill(frame, index, (103 if index == 3 else 100, 128, 128))
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    derain_video(same, source, tmp_path / 'plain.mkv')
    result = derain_video(same, source, tmp_path / 'steady.mkv', steady=True)
    assert result.frames == 6
    assert grey(tmp_path / 'plain.mkv') == [100, 100, 100, 103, 100, 100]
    assert grey(tmp_path / 'steady.mkv') == pytest.approx([100] * 6, abs=1)
    assert told(tmp_path / 'steady.mkv')['times'] == told(source)['times']


def test_progress_is_told(tmp_path, same):
    source = make_video(tmp_path / 'a.mp4', frames=5, sound=[('aac', 0, 'eng')])
    told_so_far = []
    derain_video(same, source, tmp_path / 'b.mp4', progress=lambda *numbers: told_so_far.append(numbers))
    assert told_so_far == [(i, 5) for i in range(1, 6)]


def test_nothing_is_left_where_the_network_stops(tmp_path, same, monkeypatch):
    source = make_video(tmp_path / 'a.mp4', frames=20)

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Derainer, '__call__', stopped)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        derain_video(same, source, tmp_path / 'b.mp4')
    assert [path.name for path in tmp_path.iterdir()] == ['a.mp4']
    assert threading.active_count() == before


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no device that is full')
def test_a_full_disk_fails_one_file_with_one_message(tmp_path, same, capfd):
    (tmp_path / 'in').mkdir()
    make_video(tmp_path / 'in' / 'a.mp4')
    out = tmp_path / 'out'
    out.mkdir()
    (out / f'a.mp4.{os.getpid()}.part').symlink_to('/dev/full')
    report = derain_files([tmp_path / 'in'], out, same)
    assert report.done == []
    assert report.failed[0][1] == f'the disk of {out} is full; make room on it, or choose a folder on another disk'
    assert not list(out.glob('a.mp4*'))
    assert 'Exception' not in capfd.readouterr().err


def test_a_cut_off_file_is_kept_named_and_not_a_success(tmp_path, same, capsys):
    source = make_video(tmp_path / 'a.mkv', 'mpeg4', frames=20)
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 6 // 10])
    derainer(tmp_path)
    how = ['--weights', str(tmp_path / '1.0.pth'), '--device', 'cpu']
    assert main([str(source), '-o', str(tmp_path / 'out'), *how]) == 1
    printed = capsys.readouterr()
    frames = len(told(tmp_path / 'out' / 'a.mkv')['frames'])
    assert '1 derained as far as they go:' in printed.err
    assert f'{source}: the file is cut off: {frames} of 20 frames' in printed.err
    assert printed.out.splitlines()[-1].startswith('1 derained in')


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path, same):
    peaks = []
    for frames in (10, 150):  # the second would hold 600 MB of pictures
        source = make_video(tmp_path / f'{frames}.mp4', frames=frames, size=(640, 480), options={'preset': 'ultrafast'})
        derain_video(same, source, tmp_path / f'out{frames}.mp4')
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert peaks[1] - peaks[0] < 150_000  # kilobytes, most of it what the encoder looks ahead


def test_a_file_is_named_where_the_result_cannot_be_written(tmp_path, same, monkeypatch):
    source = make_video(tmp_path / 'a.webm', 'libvpx-vp9')
    from ddsa_arch.files import video_formats

    monkeypatch.setattr(video_formats, '_formats', lambda name: {})
    with pytest.raises(InputError, match=r'no encoder for WebM .*pip install --upgrade av'):
        derain_video(same, source, tmp_path / 'b.webm')
    assert not (tmp_path / 'b.webm').exists()


def test_sizes_that_change_on_the_way(tmp_path, same):
    source = tmp_path / 'a.ts'
    with av.open(str(source), 'w') as out:
        stream = out.add_stream('mpeg2video', rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        other = av.CodecContext.create('mpeg2video', 'w')
        other.width, other.height, other.pix_fmt = 96, 80, 'yuv420p'
        other.time_base, other.framerate = Fraction(1, 25), 25
        for context, begin in ((stream.codec_context, 0), (other, 5)):
            for i in range(5):
                frame = av.VideoFrame(context.width, context.height, 'yuv420p')
                frame.pts, frame.time_base = begin + i, Fraction(1, 25)
                for packet in context.encode(frame):
                    packet.stream = stream
                    packet.time_base = Fraction(1, 25)
                    out.mux(packet)
    result = derain_video(same, source, tmp_path / 'b.ts')
    assert len(told(tmp_path / 'b.ts')['frames']) == result.frames
    assert result.notes[0].endswith('frames of other sizes became 64 x 48 pixels')
