"""Videos, frame by frame: read by OpenCV, written by ffmpeg if it is there, which keeps the sound, else by OpenCV."""

from __future__ import annotations

import abc
import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from ddsa_arch.errors import InputError
from ddsa_arch.files.atomic import atomic_path

VIDEO_SUFFIXES = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm', '.wmv')
WITH_ANY_SOUND = ('.mkv', '.mov', '.mp4', '.m4v')  # written under their own name, others as .mkv
CRF = 16  # of x264: not told from the source by eye
FALLBACK_RATE = Fraction(25)


@dataclass(frozen=True)
class VideoInfo:
    """The size, rate and length of a video, as its file states them.

    Args:
        width, height: in pixels, upright.
        rate: frames per second.
        frames: as the file says, which may be wrong; 0 if it does not say.
    """

    width: int
    height: int
    rate: Fraction
    frames: int


def has_ffmpeg() -> bool:
    """Whether ffmpeg is installed."""
    return shutil.which('ffmpeg') is not None


def output_suffix(suffix: str) -> str:
    """Return the suffix of the result for a video with this suffix."""
    if not has_ffmpeg():
        return '.mp4'
    return suffix.lower() if suffix.lower() in WITH_ANY_SOUND else '.mkv'


class VideoReader:
    """The frames of a video file, (H, W, 3) uint8 BGR, upright.

    Raises:
        InputError: the file is no video that OpenCV can read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.capture = cv2.VideoCapture(str(path))
        read, first = self.capture.read() if self.capture.isOpened() else (False, None)
        if not read or first is None:
            self.capture.release()
            size = self.path.stat().st_size if self.path.is_file() else 0
            raise InputError(f'{path}: no video that can be read ({size} bytes)')
        self._first = first
        height, width = first.shape[:2]
        frames = max(0, int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.info = VideoInfo(width, height, _exact_rate(self.path) or self._rate(), frames)

    def _rate(self) -> Fraction:
        rate = self.capture.get(cv2.CAP_PROP_FPS)
        return Fraction(rate).limit_denominator(1001) if 0 < rate < 1000 else FALLBACK_RATE

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield every frame once."""
        read, frame = True, self._first
        while read:
            yield frame
            read, frame = self.capture.read()

    def close(self) -> None:
        self.capture.release()


def _exact_rate(path: Path) -> Fraction | None:
    """Return the frames per second as a fraction, such as 30000/1001, from ffprobe where there is one."""
    if shutil.which('ffprobe') is None:
        return None
    asked = ['-select_streams', 'v:0', '-show_entries', 'stream=avg_frame_rate,r_frame_rate', '-of', 'json', str(path)]
    try:
        told = subprocess.run(['ffprobe', '-v', 'error', *asked], capture_output=True, check=True, timeout=60).stdout
        stream = json.loads(told)['streams'][0]
    except (subprocess.SubprocessError, OSError, ValueError, LookupError):
        return None
    for key in ('avg_frame_rate', 'r_frame_rate'):
        with contextlib.suppress(ValueError, ZeroDivisionError, KeyError):
            rate = Fraction(stream[key])
            if 0 < rate < 1000:
                return rate
    return None


class VideoWriter(abc.ABC):
    """Takes the frames of a video file; used by ``writing_video``."""

    @abc.abstractmethod
    def write(self, frame: np.ndarray) -> None:
        """Append a frame, (H, W, 3) uint8 BGR.

        Raises:
            InputError: ffmpeg has stopped; its own message.
        """

    @abc.abstractmethod
    def finish(self) -> None:
        """Close the file.

        Raises:
            InputError: ffmpeg has failed; its own message.
        """

    @abc.abstractmethod
    def abandon(self) -> None:
        """Stop without finishing the file."""


class _FfmpegWriter(VideoWriter):
    def __init__(self, path: Path, source: Path, info: VideoInfo) -> None:
        self.path = path
        command = _ffmpeg_command(path, source, info)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdin is not None and self.process.stderr is not None  # noqa: PT018, as both are pipes
        self.frames, self.messages = self.process.stdin, self.process.stderr

    def write(self, frame: np.ndarray) -> None:
        try:
            self.frames.write(np.ascontiguousarray(frame).data)
        except (BrokenPipeError, OSError):
            self.finish()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            self.frames.close()
        told = self.messages.read().decode(errors='replace').strip()
        if self.process.wait():
            lines = told.splitlines() or ['no message']
            raise InputError(f'{self.path}: ffmpeg failed ({lines[-1]})')

    def abandon(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class _OpenCVWriter(VideoWriter):
    def __init__(self, path: Path, info: VideoInfo) -> None:
        if info.width % 2 or info.height % 2:
            raise InputError(f'OpenCV writes no video of {info.width} x {info.height} pixels; install ffmpeg')
        code = cv2.VideoWriter.fourcc(*'mp4v')
        self.writer = cv2.VideoWriter(str(path), code, float(info.rate), (info.width, info.height))
        if not self.writer.isOpened():
            raise InputError(f'{path}: OpenCV cannot write MPEG-4 here; install ffmpeg')

    def write(self, frame: np.ndarray) -> None:
        self.writer.write(frame)

    def finish(self) -> None:
        self.writer.release()

    def abandon(self) -> None:
        self.writer.release()


@contextlib.contextmanager
def writing_video(path: str | Path, source: str | Path, info: VideoInfo) -> Iterator[VideoWriter]:
    """Write a video of the rate and size of another and with its sound, whole or not at all.

    Args:
        path: of the new file; parent folders are made.
        source: whose sound and metadata are taken, where ffmpeg is installed.
        info: of the source.
    """
    with atomic_path(path) as part:
        named = part.with_name(f'{part.stem}.part{Path(path).suffix}')  # the suffix tells the container
        try:
            writer = _FfmpegWriter(named, Path(source), info) if has_ffmpeg() else _OpenCVWriter(named, info)
            try:
                yield writer
                writer.finish()
            except BaseException:
                writer.abandon()
                raise
            named.replace(part)
        finally:
            named.unlink(missing_ok=True)


def _ffmpeg_command(path: Path, source: Path, info: VideoInfo) -> list[str]:
    even = info.width % 2 == 0 and info.height % 2 == 0
    rate = f'{info.rate.numerator}/{info.rate.denominator}'
    return [
        'ffmpeg', '-y', '-nostdin', '-loglevel', 'error',
        '-f', 'rawvideo', '-pix_fmt', 'bgr24', '-s', f'{info.width}x{info.height}', '-r', rate, '-i', 'pipe:0',
        '-i', str(source.resolve()), '-map', '0:v:0', '-map', '1:a?', '-map_metadata', '1', '-c:a', 'copy',
        '-c:v', 'libx264', '-crf', str(CRF), '-preset', 'medium', '-pix_fmt', 'yuv420p' if even else 'yuv444p',
        str(path.resolve()),
    ]  # fmt: skip
