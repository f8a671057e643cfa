"""Video files, read through the libraries of ffmpeg that PyAV brings: frames to derain, and packets to pass on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.container.input import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ddsa_arch.errors import InputError
from ddsa_arch.files.video_formats import CONTAINERS, Choice, Layout, choose, layout
from ddsa_arch.files.video_frames import (
    TRANSFERS_OF_HDR,
    Deinterlacer,
    Frame,
    display_matrix,
    has_dynamic_hdr,
    resized,
)

FALLBACK_RATE = Fraction(25)
BUFFER = 2**18  # bytes that are read at once
# no playlists, which name other files and addresses
FORMATS = (
    'mov', 'mp4', 'm4a', '3gp', 'matroska', 'webm', 'avi', 'mpegts', 'mpeg', 'mpegvideo', 'asf', 'flv', 'ogg', 'm4v',
    'h264', 'hevc', 'dv', 'ivf', 'nut', 'mxf',
)  # fmt: skip
PICTURES = ('png_pipe', 'jpeg_pipe', 'webp_pipe', 'bmp_pipe', 'tiff_pipe', 'gif', 'apng', 'jpegxl_pipe', 'jpegls_pipe')
SOUNDS = ('mp3', 'aac', 'wav', 'flac', 'ac3', 'eac3', 'dts', 'aiff', 'caf', 'w64', 'au', 'amr')
# files that tell their length at the beginning, where cutting off leaves it: by how many seconds they may be shorter
TELL_THEIR_LENGTH = {'mov': Fraction(1, 10), 'matroska': Fraction(1, 10), 'asf': Fraction(1), 'flv': Fraction(1, 4)}
PACKETS_AT_ONCE = 256  # of sound and subtitles, where no picture comes between


@dataclass(frozen=True)
class VideoInfo:
    """What a video is, as its file and its first frame state.

    Args:
        width, height: in pixels, as the frames are stored.
        rate: frames per second, on average.
        frames: about so many, which may be wrong; 0 if the file does not say.
        aspect: width of a pixel by its height.
        matrix: nine numbers by which the picture is turned for display, or None.
        choice: how the result is encoded.
    """

    width: int
    height: int
    rate: Fraction
    frames: int
    aspect: Fraction
    matrix: list[int] | None
    choice: Choice


class VideoReader:
    """The frames of a video file, in the order in which they are shown, and the packets of its other streams.

    Args:
        path: of the file; its suffix decides the container of the result, see ``video_formats``.

    Attributes:
        first: the first frame as it was decoded.
        stream: of the picture.
        notes: what is said to the user, one sentence each; complete once all frames were taken.
        cut_off: how far a file that is cut off goes; complete once all frames were taken.
        frames: taken so far.

    Raises:
        InputError: the file is no video that can be read, or has no picture.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.container = CONTAINERS[self.path.suffix.lower()]
        self.first, self.attached = _first_frame(self.path)
        self.notes: list[str] = []
        self.cut_off: str | None = None
        self.frames = 0
        with contextlib.ExitStack() as stack:  # which closes all if one step fails
            file = stack.enter_context(open(self.path, 'rb'))
            self.source = stack.enter_context(_opened(file, self.path))
            self.stream = _picture(self.source, self.path)
            self.info = self._info()
            self._open = stack.pop_all()
        self._deinterlacer: Deinterlacer | None = None
        self._last: int | None = None
        self._interlaced = self._packets = self._damaged = self._other_sizes = 0
        self._seen = Fraction(0)  # the end of what was read of any stream, in seconds

    def _info(self) -> VideoInfo:
        first, stream = self.first, self.stream
        codec = stream.codec_context.codec
        given, size = layout(first.format), (first.width, first.height)
        choice = choose(self.container, given, size, codec.lossless and not codec.lossy)
        self._tell_changes(given, choice.layout, choice.encoder.name)
        rate = stream.average_rate or stream.guessed_rate or FALLBACK_RATE
        rate = rate if 0 < rate < 1000 else FALLBACK_RATE
        frames = stream.frames or int((self._length() or 0) * rate)
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        return VideoInfo(first.width, first.height, rate, frames, aspect or Fraction(1), display_matrix(first), choice)

    def _tell_changes(self, given: Layout, taken: Layout, encoder: str) -> None:
        if given.alpha or self.stream.metadata.get('alpha_mode') == '1':
            self.notes.append('its transparency is left out')
        if taken.depth < given.depth:
            self.notes.append(f'{given.depth} bits become {taken.depth}, all that {encoder} takes')
        fineness = ['420', '422', '444', 'rgb']
        if taken.kind != given.kind and 'gray' not in (taken.kind, given.kind):
            coarser = fineness.index(taken.kind) < fineness.index(given.kind)
            self.notes.extend([f'its colours become {taken.kind} (from {given.kind})'] if coarser else [])
        transfer = TRANSFERS_OF_HDR.get(int(self.first.color_trc))
        if transfer:
            self.notes.append(f'HDR ({transfer}) is kept; the network takes its values as they are')
        if has_dynamic_hdr(self.first):
            self.notes.append('the data of Dolby Vision or HDR10+ are left out; what remains is plain HDR')

    def _length(self) -> Fraction | None:
        """Return the seconds that the file says it takes."""
        return Fraction(self.source.duration, av.time_base) if self.source.duration else None

    def items(self, passed_on: list[Stream]) -> Iterator[tuple[list[Packet], Frame | None]]:
        """Yield the frames, each with the packets of other streams that stand before it.

        Args:
            passed_on: the streams whose packets are wanted.
        """
        packets: list[Packet] = []
        for item in self._decoded(passed_on):
            if isinstance(item, Packet):
                packets.append(item)
                if len(packets) < PACKETS_AT_ONCE:
                    continue
                yield packets, None
            else:
                self.frames += 1
                yield packets, Frame(item, self.info.choice)
            packets = []
        if packets:
            yield packets, None
        self._conclude()

    def _decoded(self, passed_on: list[Stream]) -> Iterator[Packet | VideoFrame]:
        for packet in self._demuxed(passed_on):
            if packet is not None and packet.stream.index != self.stream.index:
                yield packet
                continue
            for frame in self._frames_of(packet):
                yield from self._whole(frame)
        if self._deinterlacer is not None:
            yield from self._deinterlacer(None)

    def _demuxed(self, passed_on: list[Stream]) -> Iterator[Packet | None]:
        """Yield packets, and None at the end."""
        packets = self.source.demux(self.stream, *passed_on)
        with contextlib.suppress(av.FFmpegError):  # what a file that is cut off ends with
            for packet in packets:
                if packet.dts is None and not packet.size:  # asks the decoder for what it holds back
                    continue
                if packet.pts is not None and packet.time_base is not None:
                    self._seen = max(self._seen, (packet.pts + (packet.duration or 0)) * packet.time_base)
                yield packet
        yield None

    def _frames_of(self, packet: Packet | None) -> list[VideoFrame]:
        self._packets += packet is not None
        try:
            return self.stream.decode(packet)
        except av.FFmpegError:
            self._damaged += packet is not None
            return []

    def _whole(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """Yield frames of one size that are not interlaced."""
        if (frame.width, frame.height) != (self.info.width, self.info.height):
            self._other_sizes += 1
            frame = resized(frame, (self.info.width, self.info.height))
        self._damaged += frame.is_corrupt
        frame = self._stamped(frame)
        self._interlaced += frame.interlaced_frame
        if self._deinterlacer is None and frame.interlaced_frame:
            assert self.stream.time_base is not None
            self._deinterlacer = Deinterlacer(frame, self.stream.time_base)
        if self._deinterlacer is None:
            yield frame
        else:
            yield from self._deinterlacer(frame)

    def _stamped(self, frame: VideoFrame) -> VideoFrame:
        """Give a frame a time stamp where it has none, or none after the one before."""
        if frame.pts is None:
            frame.pts = frame.dts
        if frame.pts is None:
            step = frame.duration or round(1 / (self.info.rate * (self.stream.time_base or 1)))
            frame.pts = 0 if self._last is None else self._last + step
        if self._last is not None:
            frame.pts = max(frame.pts, self._last + 1)
        self._last = frame.pts
        return frame

    def _conclude(self) -> None:
        if not self.frames:
            raise InputError(f'{self.path}: no frame of it can be read')
        if self._interlaced:
            self.notes.append('it was interlaced; each pair of fields has become one frame')
        if self._other_sizes:
            size = f'{self.info.width} x {self.info.height}'
            self.notes.append(f'{self._other_sizes} frames of other sizes became {size} pixels')
        self.cut_off = self._how_far()
        if self._damaged and not self.cut_off:
            self.notes.append(f'{self._damaged} of its frames were damaged')

    def _how_far(self) -> str | None:
        """Say how far the file goes, if it is shorter than it says."""
        kind = self.source.format.name.split(',')[0]
        length = self._length()
        seconds = 2 / self.info.rate + TELL_THEIR_LENGTH.get(kind, Fraction(self.source.duration or 0))
        begin = Fraction(min(0, self.source.start_time or 0), av.time_base)
        missing = self.stream.frames - self._packets
        slack = {'mov': 0, 'avi': 2 + self.stream.frames // 50}.get(kind, missing)
        if missing <= slack and (length is None or self._seen - begin >= length - seconds):
            return None
        told = f' of {self.info.frames}' if self.info.frames > self.frames else ''
        whole = f' of {float(length):.2f}' if length else ''
        read = float(self.frames / self.info.rate)
        return f'the file is cut off: {self.frames}{told} frames, {read:.2f}{whole} seconds, are there'

    def close(self) -> None:
        self._open.close()


def _opened(file: BinaryIO, path: Path) -> InputContainer:
    """Open a file through its descriptor, so that no name is taken for an address.

    Raises:
        InputError: no video that can be read.
    """
    known = ','.join((*FORMATS, *PICTURES, *SOUNDS))
    try:
        # metadata that are not of UTF-8 are no reason to stop
        return av.open(
            file, 'r', metadata_errors='replace', buffer_size=BUFFER, container_options={'format_whitelist': known}
        )
    except (av.FFmpegError, ValueError) as error:
        raise InputError(f'{path}: no video that can be read ({path.stat().st_size} bytes)') from error


def _picture(source: InputContainer, path: Path) -> VideoStream:
    """Return the stream that is the picture.

    Raises:
        InputError: there is none.
    """
    names = source.format.name.split(',')
    if set(names) & set(PICTURES):
        raise InputError(f'{path}: a picture ({names[0].removesuffix("_pipe")}), no video; rename it accordingly')
    attached = [stream for stream in source.streams.video if is_attached(stream)]
    moving = [stream for stream in source.streams.video if not is_attached(stream)]
    if not moving:
        cover = ' and a cover picture' if attached else ''
        sound = 'sound' if source.streams.audio else 'no sound'
        raise InputError(f'{path}: {sound}{cover} alone, no moving picture')
    best = source.streams.best('video')
    return best if isinstance(best, VideoStream) and best in moving else moving[0]


def is_attached(stream: Stream) -> bool:
    """Tell whether a stream is a cover picture."""
    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def _first_frame(path: Path) -> tuple[VideoFrame, dict[int, bytes]]:
    """Return the first frame, and the cover pictures by the number of their streams.

    Raises:
        InputError: there is no frame, or the file cannot be opened.
    """
    try:
        file = open(path, 'rb')  # noqa: SIM115, as the next line closes it
    except FileNotFoundError as error:
        raise InputError(f'{path}: no video, as there is no such file') from error
    with file, _opened(file, path) as source:
        stream = _picture(source, path)
        if stream.codec_context is None:
            raise InputError(f'{path}: its picture is coded in a way that this build of PyAV cannot read')
        covers = [other for other in source.streams.video if is_attached(other)]
        attached: dict[int, bytes] = {}
        with contextlib.suppress(av.FFmpegError):
            for packet in source.demux(stream, *covers):
                if packet.stream.index != stream.index:
                    attached.setdefault(packet.stream.index, bytes(packet))
                    continue
                with contextlib.suppress(av.FFmpegError):
                    for frame in stream.decode(packet):
                        return frame, attached
        raise InputError(f'{path}: no frame of it can be read ({stream.codec_context.name})')
