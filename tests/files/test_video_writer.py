"""Videos that are cut off or none, names of any kind, full disks: each is told, and nothing is half-made."""

import os
from fractions import Fraction

import av
import pytest
from PIL import Image
from video_copies import copied
from video_files import make_video, told, tone

from ddsa_arch.errors import InputError
from ddsa_arch.files.video_writer import writing_video
from ddsa_arch.files.videos import VideoReader

MILLISECOND, CLOCK = Fraction(1, 1000), Fraction(1, 90000)
HLG, PQ = (9, 9, 18, 1), (9, 9, 16, 1)


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
