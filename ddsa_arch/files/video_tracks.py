"""What a video file holds beside the picture: sound, subtitles, chapters, metadata, attachments."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping

import av
from av.audio.stream import AudioStream
from av.container.output import OutputContainer
from av.packet import Packet
from av.stream import AttachmentStream, Stream

from ddsa_arch.files.video_formats import MATROSKA, Container
from ddsa_arch.files.videos import VideoReader, is_attached

# what the writer of a file says of itself and of its own bytes
STALE = ('major_brand', 'minor_version', 'compatible_brands', 'encoder', 'duration', 'number_of_frames', 'alpha_mode')
STALE_BEGINNINGS = ('bps', 'number_of_', '_statistics')
KINDS = {'audio': 'sound', 'subtitle': 'subtitles', 'video': 'picture', 'data': 'data', 'attachment': 'attachment'}
APPLE = 'com.'  # how Apple's names of metadata begin
NO_CODEC = 'none'


def copied_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata but for what holds no longer."""
    kept = {}
    for key, value in metadata.items():
        low = key.lower()
        if low not in STALE and not low.startswith(STALE_BEGINNINGS):
            kept[key] = value
    return kept


def muxer_options(reader: VideoReader) -> dict[str, str]:
    """Return the options with which the result of a video is written."""
    options = dict(reader.container.options)
    if reader.container.format in ('mp4', 'mov') and any(key.startswith(APPLE) for key in reader.source.metadata):
        options['movflags'] = '+use_metadata_tags'  # such as where a telephone was
    return options


def is_passed_on(stream: Stream, reader: VideoReader) -> bool:
    """Tell whether the packets of a stream are wanted; what the muxer makes by itself is not."""
    if stream.index == reader.stream.index or stream.type in ('attachment', 'unknown'):
        return False
    if is_attached(stream):
        return not reader.container.is_matroska  # which attaches the file
    tag = getattr(stream, 'codec_tag', '') if stream.codec_context is not None else ''
    chapters = stream.type == 'data' and tag in ('text', '') and bool(reader.source.chapters())
    return not (stream.type == 'data' and ('timecode' in stream.metadata or chapters))


class AsFlac:
    """A sound that the new container does not take, coded anew without a further loss.

    Args:
        out: the new file.
        stream: of the source.
    """

    def __init__(self, out: OutputContainer, stream: AudioStream) -> None:
        self.stream, self._next = stream, 0
        given = stream.codec_context
        track = out.add_stream('flac', rate=given.sample_rate)
        assert isinstance(track, AudioStream)
        self.track = track
        self.track.codec_context.layout = given.layout
        self.track.codec_context.format = 's16' if given.format.bytes <= 2 else 's32'

    def packets(self, packet: Packet | None) -> list[Packet]:
        """Return what is ready after one more packet, or after the last one (None)."""
        ready: list[Packet] = []
        with contextlib.suppress(av.FFmpegError):  # a damaged packet
            for frame in self.stream.decode(packet):
                ready += self.track.encode(frame)
        if packet is None:
            ready += self.track.encode(None)
        return [self._stamped(one) for one in ready if one.size]  # one without sound closes the encoder

    def _stamped(self, packet: Packet) -> Packet:
        if packet.pts is None:  # of the last sound, which filled no packet
            packet.pts = packet.dts = self._next
        self._next = packet.pts + (packet.duration or 0)
        return packet


def add_track(out: OutputContainer, stream: Stream, container: Container) -> Stream | AsFlac | str:
    """Add a stream whose packets are passed on as they are.

    Returns:
        The new stream, or what codes it anew, or why it is left out.
    """
    name = stream.codec_context.name if stream.codec_context is not None else NO_CODEC
    what = f'{KINDS.get(stream.type, stream.type)} {stream.index} ({name})'
    try:
        # tried on a file of its own, as a header that fails cannot be written a second time
        with av.open(io.BytesIO(), 'w', format=container.format) as trial:
            _added(trial, stream)
            trial.start_encoding()
        new = _added(out, stream)
    except (av.FFmpegError, ValueError):
        if not isinstance(stream, AudioStream) or stream.codec_context is None or container is not MATROSKA:
            return f'{what} is left out, as {container.title} does not take it'
        coder = AsFlac(out, stream)
        _describe(coder.track, stream)
        return coder
    _describe(new, stream)
    return new


def _describe(new: Stream, stream: Stream) -> None:
    new.metadata.update(copied_metadata(stream.metadata))
    new.disposition = stream.disposition


def _added(out: OutputContainer, stream: Stream) -> Stream:
    return out.add_stream_from_template(stream, opaque=True)


def attach(out: OutputContainer, stream: Stream, reader: VideoReader) -> str | None:
    """Attach a font or a cover picture to a Matroska file.

    Returns:
        Why it is left out, or None.
    """
    name = stream.metadata.get('filename', f'attachment {stream.index}')
    if not reader.container.is_matroska or reader.container.format == 'webm':
        return f'the attached file {name} is left out, as {reader.container.title} does not take it'
    if isinstance(stream, AttachmentStream):
        out.add_attachment(name, stream.mimetype or 'application/octet-stream', bytes(stream.data))
    else:
        codec = stream.codec_context.name
        kind = {'mjpeg': 'jpeg'}.get(codec, codec)
        name = stream.metadata.get('filename', f'cover.{"jpg" if kind == "jpeg" else kind}')
        data = reader.attached.get(stream.index, b'')
        out.add_attachment(name, stream.metadata.get('mimetype', f'image/{kind}'), data)
    return None
