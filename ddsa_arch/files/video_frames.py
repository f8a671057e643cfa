"""Decoded frames of a video: their planes as arrays, their colours' coding, which side is up, interlacing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame

from ddsa_arch.files.video_formats import Choice

LIMITED_RANGE, FULL_RANGE = 1, 2  # in ffmpeg's numbers
UNSPECIFIED = 2  # matrix, primaries or transfer curve
TRANSFERS_OF_HDR = {16: 'PQ', 18: 'HLG'}
DEINTERLACER = ('bwdif', 'mode=send_frame:parity=auto:deint=interlaced')  # leaves frames alone that are not


@dataclass(frozen=True)
class Upright:
    """How a picture is turned for display: perhaps swapped along its diagonal, then perhaps mirrored."""

    swapped: bool = False
    leftright: bool = False
    updown: bool = False

    def turn(self, picture: np.ndarray) -> np.ndarray:
        """Return ``(H, W, ...)`` as it is shown."""
        if self.swapped:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.updown else 1, :: -1 if self.leftright else 1]

    def back(self, picture: np.ndarray) -> np.ndarray:
        """Return a picture that is shown upright as it is stored."""
        picture = picture[:: -1 if self.updown else 1, :: -1 if self.leftright else 1]
        return picture.swapaxes(0, 1) if self.swapped else picture


class Frame:
    """A frame in a planar format that the encoder takes.

    Args:
        frame: of PyAV, whose time stamp, tags and side data are kept.
        choice: how it is going to be encoded.

    Attributes:
        planes: luma and chroma, or green, blue and red; views into the frame, uint8 or uint16.
        matrix: of the colours, its number in H.273.
        full: whether samples use all their values.
    """

    def __init__(self, frame: VideoFrame, choice: Choice) -> None:
        self.choice = choice
        self.full = frame.color_range == FULL_RANGE or frame.format.name.startswith('yuvj')
        self.matrix = int(frame.colorspace)
        self.frame = _in_format(frame, choice.layout.name, choice.layout.depth)
        self.planes = planes_of(self.frame, choice.layout.depth)

    def replace(self, planes: Sequence[np.ndarray]) -> None:
        """Put other planes in the place of those that are there."""
        for own, new in zip(self.planes, planes, strict=True):
            own[...] = new

    def for_encoder(self) -> VideoFrame:
        """Return the frame in the very format that the encoder takes."""
        frame = self.frame
        if frame.format.name != self.choice.stored:
            frame = _reformatted(frame, self.choice.stored)
        frame.pict_type = 0  # the encoder chooses anew
        return frame


def planes_of(frame: VideoFrame, depth: int) -> list[np.ndarray]:
    """Return the planes of a planar frame as arrays into its memory."""
    kind = np.dtype(np.uint8 if depth == 8 else '<u2')
    planes = []
    for plane in frame.planes:
        lines = np.frombuffer(memoryview(plane), kind).reshape(plane.height, -1)
        lines = lines[:: -1 if plane.line_size < 0 else 1]
        planes.append(lines[:, : plane.width])
    return planes


def _in_format(frame: VideoFrame, name: str, depth: int) -> VideoFrame:
    own = frame.format.name.replace('yuvj', 'yuv').replace('yuva', 'yuv').replace('gbrap', 'gbrp')
    if frame.format.name == name:
        frame.make_writable()
        return frame
    to_colour = own.startswith('gray') and name.startswith('yuv') and depth == frame.format.components[0].bits
    if own != name and not to_colour:
        return _reformatted(frame, name)
    # the same samples under another name, which a conversion would stretch to another range
    new = VideoFrame(frame.width, frame.height, name)
    targets, sources = planes_of(new, depth), planes_of_first(frame, depth)
    for index, target in enumerate(targets):
        target[...] = sources[index] if index < len(sources) else 1 << (depth - 1)
    return _with_attributes(new, frame)


def planes_of_first(frame: VideoFrame, depth: int) -> list[np.ndarray]:
    """Return the planes of a frame but for the one of transparency."""
    return planes_of(frame, depth)[: sum(not c.is_alpha for c in frame.format.components)]


def _reformatted(frame: VideoFrame, name: str | None, size: tuple[int, int] | None = None) -> VideoFrame:
    """Return a frame in another pixel format or size, with the matrix and range that it has."""
    tags = frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range
    # ffmpeg knows few of the tags, and would convert colours by them
    frame.colorspace = frame.color_primaries = frame.color_trc = UNSPECIFIED
    same = None if frame.format.is_rgb or frame.format.has_palette else LIMITED_RANGE
    width, height = size or (None, None)
    try:
        new = frame.reformat(width, height, name, src_color_range=same, dst_color_range=same)
    finally:
        frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range = tags
    return _with_attributes(new, frame)


def _with_attributes(new: VideoFrame, old: VideoFrame) -> VideoFrame:
    new.pts, new.duration = old.pts, old.duration
    if old.time_base is not None:
        new.time_base = old.time_base
    new.colorspace, new.color_range = old.colorspace, old.color_range
    new.color_primaries, new.color_trc = old.color_primaries, old.color_trc
    if old.format.name.startswith('yuvj'):
        new.color_range = FULL_RANGE
    return new


def resized(frame: VideoFrame, size: tuple[int, int]) -> VideoFrame:
    """Return a frame with another width and height, with its own time stamp and tags."""
    return _reformatted(frame, None, size)


def _side_data(frame: VideoFrame, kind: Type) -> bytes | None:
    held: Any = frame.side_data  # Any: PyAV's types know less than it holds
    try:
        return bytes(held[kind])
    except KeyError:
        return None


def display_matrix(frame: VideoFrame) -> list[int] | None:
    """Return the nine numbers by which a picture is turned for display; None if it is shown as it is stored."""
    found = _side_data(frame, Type.DISPLAYMATRIX)
    if found is None:
        return None
    numbers = [int(n) for n in np.frombuffer(found, np.int32)]
    return None if numbers[:2] == [1 << 16, 0] and numbers[3:5] == [0, 1 << 16] else numbers


def upright(matrix: Sequence[int] | None) -> Upright:
    """Return how a picture is turned for display, to the next quarter turn."""
    if matrix is None:
        return Upright()
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if abs(b) > abs(a):
        return Upright(True, leftright=c < 0, updown=b < 0)
    return Upright(False, leftright=a < 0, updown=d < 0)


def static_hdr(frame: VideoFrame) -> tuple[str | None, str | None]:
    """Return the colours of the display that a video was mastered on, and its brightest values, as x265 takes them."""
    display, light = None, None
    found = _side_data(frame, Type.MASTERING_DISPLAY_METADATA)
    if found is not None:
        numbers = np.frombuffer(found[:88], np.int32)
        has_colours, has_light = (bool(n) for n in numbers[20:22])
        # red, green, blue and white (x, y), then the darkest and the brightest light
        values = [int(n) / int(d or 1) for n, d in numbers[:20].reshape(10, 2)]
        if has_colours and has_light:
            r, g, b, white = (f'({values[i] * 50000:.0f},{values[i + 1] * 50000:.0f})' for i in (0, 2, 4, 6))
            display = f'G{g}B{b}R{r}WP{white}L({values[9] * 10000:.0f},{values[8] * 10000:.0f})'
    found = _side_data(frame, Type.CONTENT_LIGHT_LEVEL)
    if found is not None:
        light = ','.join(str(int(n)) for n in np.frombuffer(found[:8], np.uint32))
    return display, light


def has_dynamic_hdr(frame: VideoFrame) -> bool:
    """Tell whether a frame carries data of Dolby Vision or HDR10+."""
    kinds = (Type.DYNAMIC_HDR_PLUS, Type.DOVI_METADATA, Type.DOVI_RPU_BUFFER)
    return any(_side_data(frame, kind) is not None for kind in kinds)


class Deinterlacer:
    """Makes whole frames of interlaced ones, as many as there are, with their time stamps."""

    def __init__(self, frame: VideoFrame, time_base: Fraction) -> None:
        self.time_base = time_base
        self.graph = Graph()
        nodes = [
            self.graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base),
            self.graph.add(*DEINTERLACER),
            self.graph.add('buffersink'),
        ]
        self.graph.link_nodes(*nodes).configure()

    def __call__(self, frame: VideoFrame | None) -> Iterator[VideoFrame]:
        """Yield what is ready after one more frame, or after the last one (None)."""
        self.graph.vpush(frame)
        while True:
            try:
                out = self.graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
            if out.pts is not None and out.time_base is not None:
                out.pts = round(out.pts * out.time_base / self.time_base)
                out.duration = round(out.duration * out.time_base / self.time_base)
            out.time_base = self.time_base
            yield out
