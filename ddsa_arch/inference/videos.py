"""Derain a video: the next frames are decoded, and the last ones encoded, while the network works."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
from av.packet import Packet

from ddsa_arch.errors import InputError
from ddsa_arch.files.video_frames import Frame, Upright, upright
from ddsa_arch.files.video_writer import VideoWriter, writing_video
from ddsa_arch.files.videos import VideoReader
from ddsa_arch.inference.derainer import Derainer
from ddsa_arch.machine.beside import doing_behind, reading_ahead
from ddsa_arch.ops.steady import steadied
from ddsa_arch.ops.yuv import Coding, add_change, coding, yuv_to_rgb

AHEAD = 2  # frames that are decoded before they are needed, and as many that wait for the encoder


@dataclass(frozen=True)
class VideoResult:
    """What came of a video.

    Args:
        frames: written.
        notes: what could not be kept, one sentence each.
        cut_off: how far the file goes, if it is cut off.
    """

    frames: int
    notes: list[str]
    cut_off: str | None


@dataclass(frozen=True)
class _Picture:
    """A frame, how its samples are coded, and its colours, upright, ``(H, W, 3)`` in [0, 1]."""

    frame: Frame
    code: Coding
    rainy: np.ndarray


@dataclass(frozen=True)
class _Done:
    """A frame with what the network made of it."""

    packets: list[Packet]
    picture: _Picture
    derained: np.ndarray


_Item = tuple[list[Packet], _Picture | None]  # packets of other streams, and the frame that they stand before


def derain_video(
    derainer: Derainer,
    source: str | Path,
    target: str | Path,
    progress: Callable[[int, int], None] | None = None,
    show: Callable[[np.ndarray, np.ndarray], None] | None = None,
    steady: bool = False,
) -> VideoResult:
    """Derain a video file. All but the picture is kept as it is, see ``files.video_writer``.

    Args:
        derainer: of the frames.
        source: the file.
        target: of the result, whole or absent; its suffix is ``video_formats.output_suffix`` of that of the source.
        progress: called after each frame with the number of those that are done and of all, 0 if that is not known.
        show: called with a frame from the middle, rainy and derained, upright RGB in [0, 1].
        steady: take out what is in one frame alone where its neighbours agree, see ``ops.steady``.

    Raises:
        InputError: the source cannot be read, or the result not be written.
    """
    reader = VideoReader(source)
    try:
        with writing_video(target, reader) as writer:
            turned = upright(reader.info.matrix)
            pictures = _pictures(reader.items(writer.passed_on), turned)
            count, middle = 0, reader.info.frames // 2
            with doing_behind(AHEAD) as behind, reading_ahead(pictures, AHEAD) as items:
                done = _derained(items, derainer)
                for item in _steadied(done) if steady else done:
                    if isinstance(item, list):
                        behind(_pass_on, writer, item)
                        continue
                    picture, derained = item.picture, item.derained
                    if show is not None and count == middle:
                        show(picture.rainy, derained)
                    behind(_write, writer, item.packets, picture, turned.back(derained - picture.rainy))
                    count += 1
                    if progress is not None:
                        progress(count, reader.info.frames)
    except av.FFmpegError as error:
        raise InputError(f'{source}: {error.strerror}') from error
    finally:
        reader.close()
    return VideoResult(count, [*reader.notes, *writer.notes], reader.cut_off)


def _pictures(items: Iterable[tuple[list[Packet], Frame | None]], turned: Upright) -> Iterator[_Item]:
    for packets, frame in items:
        if frame is None:
            yield packets, None
            continue
        layout = frame.choice.layout
        code = coding(frame.matrix, frame.frame.height, layout.depth, frame.full, layout.kind == 'rgb')
        yield packets, _Picture(frame, code, np.ascontiguousarray(turned.turn(yuv_to_rgb(frame.planes, code))))


def _derained(items: Iterable[_Item], derainer: Derainer) -> Iterator[_Done | list[Packet]]:
    for packets, picture in items:
        yield packets if picture is None else _Done(packets, picture, derainer(picture.rainy))


def _steadied(items: Iterable[_Done | list[Packet]]) -> Iterator[_Done | list[Packet]]:
    """Yield each frame once the next one is there; the first and the last stay as they are."""
    before: _Done | None = None
    now: _Done | None = None
    for item in items:
        if isinstance(item, list):
            yield item
            continue
        if now is not None:
            if before is not None:
                yield replace(now, derained=steadied(before.derained, now.derained, item.derained))
            else:
                yield now
        before, now = now, item
    if now is not None:
        yield now


def _write(writer: VideoWriter, packets: list[Packet], picture: _Picture, change: np.ndarray) -> None:
    _pass_on(writer, packets)
    picture.frame.replace(add_change(picture.frame.planes, change, picture.code))
    writer.write(picture.frame)


def _pass_on(writer: VideoWriter, packets: list[Packet]) -> None:
    for packet in packets:
        writer.pass_on(packet)
