"""Every kind of video keeps all but its picture, and the picture too where nothing is done to it."""

import os
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image
from video_files import fill, grey, make_video, told, tone

from ddsa_arch.errors import InputError
from ddsa_arch.files.video_formats import VIDEO_SUFFIXES, output_suffix
from ddsa_arch.files.video_writer import writing_video
from ddsa_arch.files.videos import VideoReader

MILLISECOND, CLOCK = Fraction(1, 1000), Fraction(1, 90000)
HLG, PQ = (9, 9, 18, 1), (9, 9, 16, 1)


def copied(source, target=None):
    """Write the frames and packets of a video anew; the new file and the notes."""
    target = target or source.with_name('copy' + output_suffix(source.suffix))
    reader = VideoReader(source)
    try:
        with writing_video(target, reader) as writer:
            for packets, frame in reader.items(writer.passed_on):
                for packet in packets:
                    writer.pass_on(packet)
                if frame is not None:
                    writer.write(frame)
    finally:
        reader.close()
    return target, [*reader.notes, *writer.notes, *filter(None, [reader.cut_off])]


@pytest.mark.parametrize(
    ('name', 'how'),
    [
        ('a.mp4', {}),
        ('a.m4v', {'codec': 'mpeg4', 'form': 'mp4'}),
        ('a.mov', {'codec': 'mjpeg', 'pixels': 'yuvj422p'}),
        ('a.mkv', {'codec': 'libx265', 'options': {'x265-params': 'log-level=none'}, 'base': MILLISECOND}),
        ('a.webm', {'codec': 'libvpx-vp9', 'base': MILLISECOND}),
        ('a.avi', {'codec': 'mpeg4'}),
        ('a.wmv', {'codec': 'wmv2', 'form': 'asf', 'base': MILLISECOND}),
        ('a.flv', {'codec': 'flv', 'base': MILLISECOND}),
        ('a.3gp', {'codec': 'mpeg4'}),
        ('a.ts', {'base': CLOCK}),
        ('a.m2ts', {'codec': 'mpeg2video'}),
        ('a.mts', {'form': 'mpegts', 'base': CLOCK}),
        ('a.mpg', {'codec': 'mpeg2video'}),
        ('a.ogv', {'codec': 'libvpx', 'form': 'ogg'}),
    ],
)
def test_every_container_keeps_frames_and_times(tmp_path, name, how):
    step = round(Fraction(1, 25) / how.get('base', Fraction(1, 25)))
    source = make_video(tmp_path / name, stamps=[i * step for i in range(8)], **how)
    target, notes = copied(source)
    before, after = told(source), told(target)
    assert notes == []
    assert after['size'] == before['size'] == (64, 48)
    rounding = MILLISECOND / 2 if target.suffix == '.mkv' else 0
    assert len(after['times']) == len(before['times']) == 8
    assert all(abs(a - b) <= rounding for a, b in zip(after['times'], before['times'], strict=True))
    assert grey(target) == pytest.approx(grey(source), abs=1)


def test_all_suffixes_have_a_container():
    assert {output_suffix(suffix) for suffix in VIDEO_SUFFIXES} <= set(VIDEO_SUFFIXES)
    assert output_suffix('.AVI') == '.mkv'


@pytest.mark.parametrize(('name', 'base'), [('a.mp4', CLOCK), ('a.mkv', MILLISECOND), ('a.ts', CLOCK)])
def test_rates_that_vary_are_kept_exactly(tmp_path, name, base):
    stamps = [round(seconds / base) for seconds in (1, 1.04, 1.3, 1.31, 1.7, 2.9, 3, 5)]
    target, _ = copied(make_video(tmp_path / name, stamps=stamps, base=base))
    assert told(target)['times'] == [stamp * base for stamp in stamps]


def test_equal_and_missing_time_stamps_do_not_stop(tmp_path):
    source = make_video(tmp_path / 'a.mkv', codec='ffv1', stamps=[0, 40, 40, 40, 80, 120, 160, 200], base=MILLISECOND)
    times = told(copied(source)[0])['times']
    assert [round(1000 * time) for time in times] == [0, 40, 41, 42, 80, 120, 160, 200]


@pytest.mark.parametrize(('name', 'sound'), [('a.mp4', 'aac'), ('a.mkv', 'flac'), ('a.ts', 'ac3'), ('a.avi', 'mp2')])
@pytest.mark.parametrize('late', ['picture', 'sound', 'none'])
def test_sound_is_kept_byte_for_byte_at_its_time(tmp_path, name, sound, late):
    begins = {'picture': (17, 0), 'sound': (0, 0.7), 'none': (0, 0)}[late]
    if name == 'a.avi':
        begins = 0, 0  # there nothing begins late
    tracks = [(sound, begins[1], 'deu'), (sound, begins[1], 'jpn')]
    source = make_video(tmp_path / name, stamps=[begins[0] + i for i in range(8)], sound=tracks)
    target, notes = copied(source)
    before, after = told(source), told(target)
    assert notes == []
    assert after['streams'][1:] == before['streams'][1:]
    assert after['languages'][1:] == before['languages'][1:]
    for index in (1, 2):
        assert [data for _, data in after['packets'][index]] == [data for _, data in before['packets'][index]]
        apart = [found['packets'][index][0][0] - found['times'][0] for found in (before, after)]
        assert apart[0] == pytest.approx(apart[1], abs=0.001)


def test_sound_that_does_not_fit_is_coded_anew_without_loss(tmp_path):
    source = make_video(tmp_path / 'a.wmv', 'wmv2', form='asf', base=MILLISECOND, sound=[('wmav2', 0, 'eng')])
    target, notes = copied(source)
    assert notes == ['sound 1 (wmav2) has become FLAC, as Matroska does not take it']
    assert told(target)['streams'] == [('video', 'h264'), ('audio', 'flac')]

    def wave(path):
        with av.open(str(path)) as file:
            frames = [np.asarray(f.to_ndarray(), np.float64).ravel() for f in file.decode(audio=0)]
        return np.concatenate(frames)

    before, after = wave(source), wave(target) / 2**31
    assert len(after) == len(before) > 0.35 * 44100
    assert np.abs(before - after).max() < 2**-20


@pytest.mark.parametrize('name', ['a.mkv', 'a.mp4', 'a.mov'])
def test_subtitles_chapters_and_metadata_are_kept(tmp_path, name):
    def before(out, stream):
        out.metadata['title'] = 'Rain in München'
        out.set_chapters(
            [
                {
                    'id': i,
                    'start': 100 * i - 100,
                    'end': 100 * i,
                    'time_base': MILLISECOND,
                    'metadata': {'title': title},
                }
                for i, title in enumerate(('One', 'Two'), 1)
            ]
        )

    plain = make_video(tmp_path / f'plain{name[1:]}', before=before)
    source = tmp_path / name
    text = tmp_path / 'a.srt'
    text.write_text('1\n00:00:00,040 --> 00:00:00,200\nHello\n\n', encoding='utf-8')
    with av.open(str(plain)) as picture, av.open(str(text)) as words, av.open(str(source), 'w') as out:
        out.metadata.update({'title': 'Rain in München'})
        out.set_chapters(picture.chapters())
        streams = [out.add_stream_from_template(picture.streams.video[0], opaque=True)]
        if name == 'a.mkv':
            streams.append(out.add_stream_from_template(words.streams[0], opaque=True))
            out.add_attachment('font.ttf', 'font/ttf', b'letters')
        for container, stream in zip((picture, words), streams, strict=False):
            for packet in container.demux(container.streams[0]):
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
    target, notes = copied(source)
    first, second = told(source), told(target)
    assert notes == []
    assert second['chapters'] == first['chapters'] == [(0, 'One'), (Fraction(1, 10), 'Two')]
    assert second['metadata']['title'] == 'Rain in München'
    assert second['streams'][1:] == first['streams'][1:]
    assert second['packets'] == first['packets']
    if name == 'a.mkv':
        with av.open(str(target)) as out:
            assert out.streams.attachments[0].data == b'letters'
            assert second['packets'][1][0][1] == b'Hello'


def test_cover_pictures_are_kept(tmp_path):
    Image.new('RGB', (20, 10), (200, 0, 0)).save(tmp_path / 'cover.png')
    plain = make_video(tmp_path / 'plain.mp4')
    source = tmp_path / 'a.mp4'
    with (
        av.open(str(plain)) as picture,
        av.open(str(tmp_path / 'cover.png'), format='png_pipe') as cover,
        av.open(str(source), 'w') as out,
    ):
        new = out.add_stream_from_template(picture.streams.video[0], opaque=True)
        art = out.add_stream_from_template(cover.streams.video[0], opaque=True)
        art.disposition = av.stream.Disposition.attached_pic
        for container, stream in ((cover, art), (picture, new)):
            for packet in container.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
    target, notes = copied(source)
    assert notes == []
    assert told(target)['packets'] == told(source)['packets']
    assert told(target)['times'] == told(source)['times']


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


@pytest.mark.parametrize('name', ['a.mkv', 'a.avi', 'a.flv'])
def test_a_file_that_is_cut_off_goes_as_far_as_it_goes(tmp_path, name):
    codec = 'flv' if name == 'a.flv' else 'mpeg4'
    whole = make_video(tmp_path / name, codec, frames=20, sound=[('mp2', 0, 'eng')] if name == 'a.avi' else [])
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) * 7 // 10])
    target, notes = copied(whole)
    frames = len(told(target)['frames'])
    assert 1 < frames < 18
    assert len(notes) == 1
    assert f'cut off: {frames} of 2' in notes[0]


def test_mp4_that_is_cut_off_goes_as_far_as_it_goes(tmp_path):
    source = tmp_path / 'a.mp4'
    make_video(tmp_path / 'b.mp4', frames=20)
    first = {'movflags': 'faststart'}  # the index comes first
    with av.open(str(tmp_path / 'b.mp4')) as whole, av.open(str(source), 'w', container_options=first) as out:
        stream = out.add_stream_from_template(whole.streams.video[0], opaque=True)
        for packet in whole.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 7 // 10])
    target, notes = copied(source)
    frames = len(told(target)['frames'])
    assert 1 < frames < 18
    assert notes == [f'the file is cut off: {frames} of 20 frames, {frames / 25:.2f} of 0.80 seconds, are there']


def test_what_holds_no_video_is_named(tmp_path):
    def refusal(name, data=None):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError) as caught:
            VideoReader(tmp_path / name)
        assert str(caught.value).startswith(f'{tmp_path / name}: ')
        return str(caught.value).removeprefix(f'{tmp_path / name}: ')

    assert refusal('none.mp4') == 'no video, as there is no such file'
    assert refusal('empty.mkv', b'') == 'no video that can be read (0 bytes)'
    assert refusal('text.mp4', b'no video') == 'no video that can be read (8 bytes)'
    assert (
        refusal('list.mp4', b'#EXTM3U\n#EXTINF:1,\nhttp://localhost/a.ts\n') == 'no video that can be read (41 bytes)'
    )
    with av.open(str(tmp_path / 'sound.mp4'), 'w') as out:
        track = out.add_stream('aac', rate=44100)
        out.mux(tone(track, 0))
    assert refusal('sound.mp4') == 'sound alone, no moving picture'
    Image.new('RGB', (20, 10)).save(tmp_path / 'still.png')
    still = (tmp_path / 'still.png').read_bytes()
    assert refusal('still.mp4', still) == 'a picture (png), no video; rename it accordingly'
    make_video(tmp_path / 'cut.mp4')
    assert refusal('cut.mp4', (tmp_path / 'cut.mp4').read_bytes()[:-200]).startswith('no video that can be read')
    make_video(tmp_path / 'noise.mkv', codec='ffv1')
    data = bytearray((tmp_path / 'noise.mkv').read_bytes())
    data[900:] = bytes(len(data) - 900)
    assert refusal('noise.mkv', bytes(data)) == 'no frame of it can be read (ffv1)'


@pytest.mark.parametrize(
    'name',
    ['12:30.mp4', '-a b%03d.mp4', "file:'x'.mp4", 'x' * 251 + '.mp4', '雨' * 83 + '.mp4', os.fsdecode(b'\xff.mp4')],
    ids=['colon', 'dash', 'quotes', 'long', 'wide', 'bytes'],
)
def test_any_name_is_taken(tmp_path, name, monkeypatch):
    plain = make_video(tmp_path / 'plain.mp4', frames=2)
    monkeypatch.chdir(tmp_path)
    source = plain.rename(name)
    (tmp_path / 'out').mkdir()
    target, _ = copied(source, tmp_path / 'out' / name)
    assert len(told(target)['frames']) == 2
    assert [path.name for path in (tmp_path / 'out').iterdir()] == [name]


def test_a_video_is_whole_or_absent(tmp_path):
    source = make_video(tmp_path / 'a.mp4')

    def interrupted():
        reader = VideoReader(source)
        with writing_video(tmp_path / 'b.mp4', reader) as writer:
            writer.write(next(reader.items([]))[1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ['a.mp4']


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no device that is full')
@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.ts'])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, name, capfd):
    source = make_video(tmp_path / name, frames=8)
    target = tmp_path / f'b{name[1:]}'
    target.with_name(f'{target.name}.{os.getpid()}.part').symlink_to('/dev/full')
    with pytest.raises(InputError, match='is full; make room'):
        copied(source, target)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert capfd.readouterr().err == ''
