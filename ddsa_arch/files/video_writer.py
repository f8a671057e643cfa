"""The derained video: frames encoded with the time stamps and tags of the source, all other streams as they were."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import av
from av.codec.context import Flags
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from ddsa_arch.errors import InputError
from ddsa_arch.files import matroska
from ddsa_arch.files.atomic import atomic_path
from ddsa_arch.files.video_formats import Encoder
from ddsa_arch.files.video_frames import FULL_RANGE, Frame, static_hdr
from ddsa_arch.files.video_tracks import AsFlac, add_track, attach, copied_metadata, is_passed_on, muxer_options
from ddsa_arch.files.videos import VideoReader

os.environ.setdefault('SVT_LOG', '0')  # else SVT-AV1 writes to the terminal by itself
HEVC_TAG = 'hvc1'  # without it Apple's players take no HEVC
REORDERED = 1.0  # seconds that hold the frames which wait for later ones
FEW = 8  # frames
FARTHEST = 2**31  # ticks between the time stamps of a packet
MOV_FORMATS = ('mp4', 'mov')


class _Sink:
    """A file whose first error is kept: the libraries of ffmpeg go on writing after one."""

    def __init__(self, path: Path) -> None:
        self.name = ''  # PyAV looks for it; the format is told otherwise
        self.error: OSError | None = None
        self.closed = False
        self._file = open(path, 'wb')  # noqa: SIM115, as it is closed by close()

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence) if self.error is None else 0

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            try:
                self._file.close()
            except OSError as error:
                self.error = self.error or error

    def check(self) -> None:
        if self.error is not None:
            raise self.error


class VideoWriter:
    """Takes the frames and packets of a reader; used by ``writing_video``.

    Attributes:
        passed_on: the streams of the source whose packets are taken.
        notes: what could not be kept, one sentence each.
    """

    def __init__(self, part: Path, reader: VideoReader) -> None:
        self.reader, self.notes = reader, list[str]()
        self.sink = _Sink(part)
        container = reader.container
        # the shape of pixels that neither the stream nor, by PyAV, the file tells
        self._write_aspect = (
            reader.info.aspect != 1 and container.is_matroska and not (reader.info.choice.encoder.holds_aspect)
        )
        options = muxer_options(reader) | (matroska.OPTIONS if self._write_aspect else {})
        self.out = av.open(self.sink, 'w', format=container.format, container_options=options, buffer_size=2**18)
        self.out.metadata.update(copied_metadata(reader.source.metadata))
        self._last_picture: int | None = None
        self._tracks: dict[int, Stream] = {}
        self._coders: dict[int, AsFlac] = {}
        self._last: dict[int, int] = {}
        self._lost: dict[int, int] = {}
        for stream in reader.source.streams:
            if stream.index == reader.stream.index:
                self.picture = self._add_picture()
            elif is_passed_on(stream, reader) and not self._is_second_picture(stream):
                added = add_track(self.out, stream, reader.container)
                self._keep(stream, added)
            elif stream.type == 'attachment' or self._is_cover(stream):
                self.notes += filter(None, [attach(self.out, stream, reader)])
        self.out.set_chapters(reader.source.chapters())
        self.passed_on = [s for s in reader.source.streams if s.index in self._tracks or s.index in self._coders]

    def _keep(self, stream: Stream, added: Stream | AsFlac | str) -> None:
        if isinstance(added, str):
            self.notes.append(added)
        elif isinstance(added, AsFlac):
            self._coders[stream.index] = added
            name, title = stream.codec_context.name, self.reader.container.title
            self.notes.append(f'sound {stream.index} ({name}) has become FLAC, as {title} does not take it')
        else:
            self._tracks[stream.index] = added

    def _is_cover(self, stream: Stream) -> bool:
        return stream.type == 'video' and stream.index in self.reader.attached

    def _is_second_picture(self, stream: Stream) -> bool:
        second = stream.type == 'video' and not self._is_cover(stream)
        if second:
            self.notes.append(f'picture {stream.index} is left out, as one picture of a file is derained')
        return second

    def _add_picture(self) -> VideoStream:
        source, info, first = self.reader.stream, self.reader.info, self.reader.first
        options = _with_hdr(info.choice.encoder, *static_hdr(first))
        begins_early = self.reader.container.format == 'mpegts' and (first.time or 0) < REORDERED
        if begins_early or info.frames < FEW:  # the clock would have to begin before 0; x265 tells wrong stamps
            options['bf'] = '0'
        new = self.out.add_stream(info.choice.encoder.name, rate=info.rate, options=options)
        assert isinstance(new, VideoStream)
        context = new.codec_context
        context.width, context.height, context.pix_fmt = info.width, info.height, info.choice.stored
        time_base = source.time_base or 1 / info.rate
        context.time_base, new.time_base = time_base, time_base
        context.flags |= Flags.frame_duration
        context.sample_aspect_ratio = info.aspect
        full = first.color_range == FULL_RANGE or first.format.name.startswith('yuvj')
        context.color_range = FULL_RANGE if full else first.color_range
        context.colorspace, context.color_trc = int(first.colorspace), int(first.color_trc)
        context.color_primaries = int(first.color_primaries)
        if context.name == 'libx265' and self.reader.container.format in MOV_FORMATS:
            context.codec_tag = HEVC_TAG
        new.metadata.update(copied_metadata(source.metadata))
        new.disposition = source.disposition
        self._add_matrix(new)
        return new

    def _add_matrix(self, new: VideoStream) -> None:
        """Tell how the picture is turned for display, or hold a place for the shape of its pixels."""
        matrix = self.reader.info.matrix
        if matrix is not None and self._write_aspect:
            self._write_aspect = False
            self.notes.append(f'the shape of its pixels ({self.reader.info.aspect}) is left out')
        new.set_display_matrix(matroska.ASPECT_HOLDER if self._write_aspect else matrix)

    def write(self, frame: Frame) -> None:
        """Encode a frame.

        Raises:
            InputError: the encoder refuses it.
            OSError: the file cannot be written.
        """
        try:
            self._mux_picture(self.picture.encode(frame.for_encoder()))
        except av.FFmpegError as error:
            self.sink.check()
            raise InputError(f'{self.picture.codec_context.name} cannot encode it ({error.strerror})') from error
        self.sink.check()

    def _mux_picture(self, packets: list[Packet]) -> None:
        for packet in packets:
            if packet.pts is not None:
                # x265 tells a decoding time at random if there are fewer frames than it wants to reorder
                wrong = packet.dts is None or not 0 <= packet.pts - packet.dts < FARTHEST
                if wrong:
                    packet.dts = packet.pts - FEW if self._last_picture is None else self._last_picture + 1
                self._last_picture = packet.dts
            self.out.mux(packet)

    def pass_on(self, packet: Packet) -> None:
        """Write a packet of another stream; one that does not fit is left out and counted."""
        index = packet.stream.index
        try:
            if index in self._coders:
                self.out.mux(self._coders[index].packets(packet))
            else:
                self.out.mux(self._in_order(packet, self._tracks[index]))
        except (av.FFmpegError, ValueError):
            self._lost[index] = self._lost.get(index, 0) + 1
        self.sink.check()

    def _in_order(self, packet: Packet, track: Stream) -> Packet:
        """Give a packet to its new stream, and time stamps after those of the one before."""
        index = packet.stream.index
        last = self._last.get(index)
        least = None if last is None else last + (track.type != 'subtitle')
        if packet.dts is None:
            packet.dts = packet.pts if packet.pts is not None else least or 0
        if least is not None:
            packet.dts = max(packet.dts, least)
        if packet.pts is None or packet.pts < packet.dts:
            packet.pts = packet.dts
        self._last[index] = packet.dts
        packet.stream = track
        return packet

    def finish(self) -> None:
        """Close the file.

        Raises:
            InputError: the encoder fails.
            OSError: the file cannot be written.
        """
        try:
            self._mux_picture(self.picture.encode(None))
            for coder in self._coders.values():
                self.out.mux(coder.packets(None))
            self.out.close()
        except av.FFmpegError as error:
            self.sink.check()
            raise InputError(f'{self.reader.container.title} cannot be written ({error.strerror})') from error
        self.sink.close()
        self.sink.check()
        for index, count in self._lost.items():
            self.notes.append(f'{count} packets of stream {index} do not fit into {self.reader.container.title}')

    def complete(self, part: Path) -> None:
        """Write what can be written into a closed file alone."""
        info = self.reader.info
        if self._write_aspect and not matroska.write_aspect(part, info.width, info.height, info.aspect):
            self.notes.append(f'the shape of its pixels ({info.aspect}) is left out')

    def abandon(self) -> None:
        """Stop without finishing the file."""
        self.sink.close()


@contextlib.contextmanager
def writing_video(path: str | Path, reader: VideoReader) -> Iterator[VideoWriter]:
    """Write the result of a video, whole or not at all.

    Args:
        path: of the new file; parent folders are made.
        reader: of the source.

    Raises:
        InputError: it cannot be written.
    """
    with atomic_path(path) as part:
        writer = VideoWriter(part, reader)
        try:
            yield writer
            writer.finish()
            writer.complete(part)
        finally:
            writer.abandon()


def _with_hdr(encoder: Encoder, display: str | None, light: str | None) -> dict[str, str]:
    """Return the options of an encoder with those for what HDR says of its display."""
    options = dict(encoder.options)
    names = {
        'libx265': ('x265-params', 'master-display', 'max-cll'),
        'libx264': ('x264-params', 'mastering-display', 'cll'),
    }
    if encoder.name in names:
        key, *wanted = names[encoder.name]
        told = [f'{name}={value}' for name, value in zip(wanted, (display, light), strict=True) if value]
        options[key] = ':'.join(filter(None, [options.get(key), *told]))
        if not options[key]:
            del options[key]
    return options
