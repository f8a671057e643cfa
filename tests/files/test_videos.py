"""Every kind of video keeps its times, its sound and whatever else it holds beside the picture."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image
from video_copies import copied
from video_files import grey, make_video, told

from ddsa_arch.files.video_formats import VIDEO_SUFFIXES, output_suffix

MILLISECOND, CLOCK = Fraction(1, 1000), Fraction(1, 90000)
HLG, PQ = (9, 9, 18, 1), (9, 9, 16, 1)


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
