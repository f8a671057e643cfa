"""The picture of every kind of video keeps its tags, depth, chroma, shape and direction."""

from fractions import Fraction

import av
import numpy as np
import pytest
from video_copies import copied
from video_files import fill, grey, make_video, told

MILLISECOND, CLOCK = Fraction(1, 1000), Fraction(1, 90000)
HLG, PQ = (9, 9, 18, 1), (9, 9, 16, 1)


@pytest.mark.parametrize(
    'tags', [(1, 1, 1, 1), (6, 6, 6, 1), (9, 9, 14, 1), (1, 1, 1, 2), (5, 5, 1, 2), (9, 9, 9, 1), (2, 2, 2, 0)]
)
@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.webm'])
def test_colours_keep_their_tags(tmp_path, name, tags):
    codec = 'libvpx-vp9' if name == 'a.webm' else 'libx264'
    source = make_video(tmp_path / name, codec=codec, frames=2, tags=tags, base=Fraction(1, 10))
    before, after = told(source), told(copied(source)[0])
    assert after['tags'][:3] == before['tags'][:3]
    assert (after['tags'][3] == 2) == (before['tags'][3] == 2) == (tags[3] == 2)


@pytest.mark.parametrize(
    ('name', 'codec', 'pixels', 'expected'),
    [
        ('a.mp4', 'libx264', 'yuv420p', ('h264', 'yuv420p')),
        ('a.mp4', 'libx264', 'yuvj420p', ('h264', 'yuvj420p')),
        ('a.mp4', 'libx264', 'yuv422p', ('h264', 'yuv422p')),
        ('a.mp4', 'libx264', 'yuv444p', ('h264', 'yuv444p')),
        ('a.mp4', 'libx264', 'yuv420p10le', ('hevc', 'yuv420p10le')),
        ('a.mov', 'prores_ks', 'yuv422p10le', ('hevc', 'yuv422p10le')),
        ('a.mov', 'prores_ks', 'yuva444p10le', ('hevc', 'yuv444p12le')),
        ('a.mkv', 'libx265', 'yuv444p12le', ('hevc', 'yuv444p12le')),
        ('a.mkv', 'ffv1', 'yuv420p', ('ffv1', 'yuv420p')),
        ('a.mkv', 'ffv1', 'yuv422p16le', ('ffv1', 'yuv422p16le')),
        ('a.mkv', 'ffv1', 'bgr0', ('ffv1', 'bgr0')),
        ('a.mkv', 'ffv1', 'gray10le', ('ffv1', 'gray10le')),
        ('a.mkv', 'ffv1', 'gbrp10le', ('ffv1', 'gbrp10le')),
        ('a.avi', 'huffyuv', 'rgb24', ('ffv1', 'bgr0')),
        ('a.mkv', 'mjpeg', 'yuvj422p', ('h264', 'yuvj422p')),
        ('a.mov', 'qtrle', 'rgb24', ('hevc', 'gbrp')),
        ('a.webm', 'libvpx-vp9', 'yuv444p', ('vp9', 'yuv444p')),
        ('a.webm', 'libsvtav1', 'yuv420p10le', ('av1', 'yuv420p10le')),
    ],
)
def test_depth_and_chroma_are_kept(tmp_path, name, codec, pixels, expected):
    options = {'x265-params': 'log-level=none'} if codec == 'libx265' else {}
    source = make_video(tmp_path / name, codec=codec, pixels=pixels, frames=3, options=options)
    target, notes = copied(source)
    after = told(target)
    assert (after['codec'], after['pixels']) == expected
    assert any('transparency' in note for note in notes) == ('yuva' in pixels)
    if expected[0] == 'ffv1' or codec in ('qtrle', 'huffyuv'):  # nothing is lost
        for one, other in zip(told(source)['frames'], after['frames'], strict=True):
            assert np.array_equal(one.to_ndarray(format='rgb48le'), other.to_ndarray(format='rgb48le'))


@pytest.mark.parametrize('frames', [1, 2, 3, 4, 9])
@pytest.mark.parametrize('told_frames', [True, False])
def test_few_frames_of_ten_bits_keep_their_times(tmp_path, monkeypatch, frames, told_frames):
    monkeypatch.setattr('ddsa_arch.files.video_writer.FEW', 8 if told_frames else 1)  # 1: no help from the number told
    source = make_video(tmp_path / 'a.mov', 'prores_ks', 'yuv422p10le', frames)
    assert told(copied(source)[0])['times'] == [Fraction(i, 25) for i in range(frames)]


@pytest.mark.parametrize('tags', [(9, 9, 9, 1), (14, 12, 17, 2), (0, 1, 13, 2)])
def test_rare_tags_do_not_hinder_a_change_of_format(tmp_path, tags):
    pixels, codec = ('rgb24', 'png') if tags[0] == 0 else ('uyvy422', 'rawvideo')
    source = make_video(tmp_path / 'a.mov', codec, pixels, 2, tags=tags, values=[100, 128, 128])
    target, _ = copied(source)
    assert told(target)['tags'][1:3] == told(source)['tags'][1:3]
    pair = [told(path)['frames'][0] for path in (source, target)]
    if pixels == 'rgb24':
        assert np.array_equal(*(frame.to_ndarray(format='rgb24') for frame in pair))


@pytest.mark.parametrize(('tags', 'name'), [(HLG, 'HLG'), (PQ, 'PQ')])
def test_hdr_is_kept_and_said(tmp_path, tags, name):
    display = 'G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)'
    options = {'x265-params': f'log-level=none:master-display={display}:max-cll=1000,400'}
    source = make_video(tmp_path / 'a.mp4', 'libx265', 'yuv420p10le', 3, tags=tags, options=options)
    target, notes = copied(source)
    before, after = told(source), told(target)
    assert notes == [f'HDR ({name}) is kept; the network takes its values as they are']
    assert (after['tags'], after['pixels']) == (tags, 'yuv420p10le')
    for kind in ('MASTERING_DISPLAY_METADATA', 'CONTENT_LIGHT_LEVEL'):
        one, other = (bytes(found['frames'][0].side_data[kind]) for found in (before, after))
        numbers = [np.frombuffer(data, np.int32) for data in (one, other)]
        if kind.startswith('MASTERING'):
            numbers = [n[0:20:2] / n[1:20:2] for n in numbers]
        assert np.allclose(*numbers)


@pytest.mark.parametrize(
    ('name', 'codec', 'pixels', 'expected'),
    [
        ('a.mp4', 'libx264', 'yuv420p', 'h264'),
        ('a.mkv', 'libx264', 'yuv420p', 'h264'),
        ('a.webm', 'libvpx-vp9', 'yuv420p', 'vp9'),
        ('a.mkv', 'png', 'rgb24', 'ffv1'),
    ],
)
@pytest.mark.parametrize('aspect', [Fraction(16, 15), Fraction(4, 3), Fraction(3, 4)])
def test_the_shape_of_pixels_is_kept(tmp_path, name, codec, pixels, expected, aspect):
    # MP4 tells the shape of pixels of any codec, whatever the suffix of the file
    source = make_video(tmp_path / name, codec, pixels, frames=2, form='mp4', sample_aspect_ratio=aspect)
    target, notes = copied(source)
    assert notes == []
    assert told(target)['aspect'] == told(source)['aspect'] == aspect
    assert told(target)['codec'] == expected


@pytest.mark.parametrize('name', ['a.mp4', 'a.mov', 'a.mkv'])
@pytest.mark.parametrize('turn', [90, 180, -90])
def test_pictures_stay_turned(tmp_path, name, turn):
    source = make_video(tmp_path / name, frames=2, before=lambda _, stream: stream.set_display_rotation(turn))
    before, after = told(source), told(copied(source)[0])
    assert after['rotation'] % 360 == before['rotation'] % 360 == turn % 360
    assert after['size'] == (64, 48)


@pytest.mark.parametrize(
    ('name', 'codec', 'pixels'),
    [('a.mp4', 'libx264', 'yuv444p'), ('a.webm', 'libvpx-vp9', 'yuv420p'), ('a.mkv', 'ffv1', 'yuv420p')],
)
def test_odd_sizes_are_kept(tmp_path, name, codec, pixels):
    source = make_video(tmp_path / name, codec, pixels, frames=3, size=(51, 33))
    target, _ = copied(source)
    assert told(target)['size'] == (51, 33)
    assert grey(target) == pytest.approx(grey(source), abs=1)


@pytest.mark.parametrize('codec', ['libx264', 'mpeg2video'])
def test_interlaced_pictures_become_whole_frames(tmp_path, codec):
    interlaced = av.codec.context.Flags.interlaced_dct | av.codec.context.Flags.interlaced_me
    options = {'x264-params': 'interlaced=1'} if codec == 'libx264' else {}

    def before(out, stream):
        stream.codec_context.flags |= interlaced

    source = make_video(tmp_path / 'a.ts', codec, options=options, before=before)
    if codec == 'mpeg2video':  # whose frames say it one by one
        make_interlaced(source)
    target, notes = copied(source)
    first, second = told(source), told(target)
    assert all(frame.interlaced_frame for frame in first['frames'])
    assert not any(frame.interlaced_frame for frame in second['frames'])
    assert second['times'] == first['times']
    assert notes == ['it was interlaced; each pair of fields has become one frame']
    assert grey(target) == pytest.approx(grey(source), abs=2)


def make_interlaced(path):
    """Write an MPEG-2 video by ffmpeg's own filter that marks fields."""
    graph = av.filter.Graph()
    nodes = [
        graph.add_buffer(width=64, height=48, format=av.VideoFormat('yuv420p'), time_base=Fraction(1, 25)),
        graph.add('setfield', 'tff'),
        graph.add('buffersink'),
    ]
    graph.link_nodes(*nodes).configure()
    with av.open(str(path), 'w', format='mpegts') as out:
        stream = out.add_stream('mpeg2video', rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        stream.codec_context.flags |= av.codec.context.Flags.interlaced_dct | av.codec.context.Flags.interlaced_me
        for index in range(8):
            frame = av.VideoFrame(64, 48, 'yuv420p')
            fill(frame, index)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            graph.vpush(frame)
            out.mux(stream.encode(graph.vpull()))
        out.mux(stream.encode(None))
