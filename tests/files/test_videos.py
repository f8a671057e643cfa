import shutil
import subprocess
from fractions import Fraction

import cv2
import numpy as np
import pytest

from ddsa_arch.errors import InputError
from ddsa_arch.files import videos
from ddsa_arch.files.videos import VideoInfo, VideoReader, output_suffix, writing_video

needs_ffmpeg = pytest.mark.skipif(shutil.which('ffmpeg') is None, reason='ffmpeg is not installed')


def grey_video(path, size=(48, 32), frames=9, rate=25.0):
    """Frames of one grey each, 10, 30, 50 ..."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), rate, size)
    for index in range(frames):
        writer.write(np.full((size[1], size[0], 3), 10 + 20 * (index % 9), np.uint8))
    writer.release()
    return path


def streams(path):
    asked = ['-show_entries', 'stream=codec_type,codec_name,width,height,r_frame_rate', '-of', 'compact', str(path)]
    return subprocess.run(['ffprobe', '-v', 'error', *asked], capture_output=True, text=True, check=True).stdout


def copy_video(source, target):
    reader = VideoReader(source)
    with writing_video(target, source, reader.info) as writer:
        for frame in reader:
            writer.write(frame)
    reader.close()


def greys(path):
    reader = VideoReader(path)
    values = [float(frame.mean()) for frame in reader]
    reader.close()
    return values


@pytest.mark.parametrize('with_ffmpeg', [pytest.param(True, marks=needs_ffmpeg), False])
def test_a_video_keeps_its_frames_rate_and_size(tmp_path, monkeypatch, with_ffmpeg):
    source = grey_video(tmp_path / 'a.mp4', rate=30000 / 1001)
    if not with_ffmpeg:
        monkeypatch.setattr(videos, 'has_ffmpeg', lambda: False)
    copy_video(source, tmp_path / 'b.mp4')
    reader = VideoReader(tmp_path / 'b.mp4')
    first = VideoReader(source).info
    assert (reader.info.width, reader.info.height) == (first.width, first.height) == (48, 32)
    assert float(reader.info.rate) == pytest.approx(30000 / 1001, abs=0.02)
    assert reader.info.frames == 9
    assert greys(tmp_path / 'b.mp4') == pytest.approx(greys(source), abs=5)


@needs_ffmpeg
@pytest.mark.parametrize(('suffix', 'sound'), [('.mp4', 'aac'), ('.mkv', 'flac'), ('.avi', 'pcm_s16le')])
def test_the_sound_is_kept(tmp_path, suffix, sound):
    silent, source = grey_video(tmp_path / 'silent.mp4', frames=25), tmp_path / f'a{suffix}'
    tone = ['-f', 'lavfi', '-i', 'sine=frequency=440:duration=1']
    subprocess.run(['ffmpeg', '-loglevel', 'error', '-i', str(silent), *tone, '-c:a', sound, str(source)], check=True)
    target = tmp_path / f'b{output_suffix(suffix)}'
    copy_video(source, target)
    assert sound in streams(target)
    assert 'h264' in streams(target)


@needs_ffmpeg
def test_odd_sizes_are_kept(tmp_path):
    pattern = ['-f', 'lavfi', '-i', 'testsrc=size=51x33:rate=10:duration=0.5', '-pix_fmt', 'yuv444p']
    subprocess.run(['ffmpeg', '-loglevel', 'error', *pattern, str(tmp_path / 'a.mp4')], check=True)
    copy_video(tmp_path / 'a.mp4', tmp_path / 'b.mp4')
    info = VideoReader(tmp_path / 'b.mp4').info
    assert (info.width, info.height, info.frames) == (51, 33, 5)


def test_opencv_writes_no_odd_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(videos, 'has_ffmpeg', lambda: False)
    info = VideoInfo(51, 33, Fraction(10), 5)

    def write():
        with writing_video(tmp_path / 'b.mp4', tmp_path / 'a.mp4', info):
            pass

    with pytest.raises(InputError, match='51 x 33 pixels; install ffmpeg'):
        write()


@needs_ffmpeg
def test_the_rate_is_exact(tmp_path):
    pattern = ['-f', 'lavfi', '-i', 'testsrc=size=64x48:rate=30000/1001:duration=0.5']
    subprocess.run(['ffmpeg', '-loglevel', 'error', *pattern, str(tmp_path / 'a.mp4')], check=True)
    assert VideoReader(tmp_path / 'a.mp4').info.rate == Fraction(30000, 1001)


def test_a_video_is_whole_or_absent(tmp_path):
    source = grey_video(tmp_path / 'a.mp4')

    def interrupted():
        reader = VideoReader(source)
        with writing_video(tmp_path / 'b.mp4', source, reader.info) as writer:
            writer.write(next(iter(reader)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ['a.mp4']


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / 'a.mp4').write_bytes(b'no video')
    with pytest.raises(InputError, match=r'a.mp4: no video that can be read \(8 bytes\)'):
        VideoReader(tmp_path / 'a.mp4')
    with pytest.raises(InputError, match=r'none.mp4: no video'):
        VideoReader(tmp_path / 'none.mp4')


@needs_ffmpeg
def test_what_ffmpeg_says_is_passed_on(tmp_path):
    source = grey_video(tmp_path / 'a.mp4')
    with pytest.raises(InputError, match='ffmpeg failed'):
        copy_video(source, tmp_path / 'b.xyz')
    assert [p.name for p in tmp_path.iterdir()] == ['a.mp4']
