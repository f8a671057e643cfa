"""Which container, encoder and pixel format a derained video gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import av
from av.video.format import VideoFormat

from ddsa_arch.errors import InputError

SINGLE_CHROMA = ('libx264', 'libx265', 'libsvtav1')  # halve chroma of even sizes alone
SMALLEST_HEVC = 32  # pixels of a side
RGB8, PACKED_RGB8 = 'gbrp', 'bgr0'  # the second is what FFV1 has in place of the first
QUIET = 'log-level=none'  # x265 writes to the terminal by itself


@dataclass(frozen=True)
class Encoder:
    """An encoder of ffmpeg's libraries, and how it is used here.

    Args:
        name: in ffmpeg.
        options: for it.
        holds_aspect: whether the stream itself tells the shape of its pixels.
    """

    name: str
    options: Mapping[str, str]
    holds_aspect: bool = True


# not told from the source by eye
H264 = Encoder('libx264', {'crf': '16', 'preset': 'medium'})
HEVC = Encoder('libx265', {'crf': '16', 'preset': 'medium', 'x265-params': QUIET})
VP9 = Encoder('libvpx-vp9', {'crf': '15', 'b': '0', 'cpu-used': '3', 'row-mt': '1'}, holds_aspect=False)
AV1 = Encoder('libsvtav1', {'crf': '18', 'preset': '6'}, holds_aspect=False)
FFV1 = Encoder('ffv1', {'level': '3', 'slicecrc': '1'}, holds_aspect=False)
LOSSLESS_HEVC = Encoder('libx265', {'preset': 'medium', 'x265-params': f'{QUIET}:lossless=1'})


@dataclass(frozen=True)
class Container:
    """A kind of video file that can be written.

    Args:
        format: ffmpeg's name of it.
        title: what people call it.
        suffix: of its files; '' keeps that of the source.
        eight, deep, lossless: encoders for 8 bits, for more, and for sources that lost nothing; the first is preferred.
        options: for the muxer.
    """

    format: str
    title: str
    suffix: str
    eight: tuple[Encoder, ...] = (H264, HEVC)
    deep: tuple[Encoder, ...] = (HEVC, H264)
    lossless: tuple[Encoder, ...] = (LOSSLESS_HEVC,)
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_matroska(self) -> bool:
        return self.format in ('matroska', 'webm')


MP4 = Container('mp4', 'MP4', '')
AS_MP4 = Container('mp4', 'MP4', '.mp4')
QUICKTIME = Container('mov', 'QuickTime', '')
MATROSKA = Container('matroska', 'Matroska', '.mkv', lossless=(FFV1,))
WEBM = Container('webm', 'WebM', '', eight=(VP9,), deep=(AV1, VP9), lossless=(VP9,))
# the stream's own clock, which begins anywhere, is kept
TRANSPORT = Container('mpegts', 'MPEG-TS', '', options={'mpegts_copyts': '1'})
BLU_RAY = Container('mpegts', 'MPEG-TS', '', options={'mpegts_copyts': '1', 'mpegts_m2ts_mode': '1'})
CONTAINERS = {
    '.3gp': AS_MP4, '.avi': MATROSKA, '.flv': MATROSKA, '.m2ts': BLU_RAY, '.m4v': MP4, '.mkv': MATROSKA,
    '.mov': QUICKTIME, '.mp4': MP4, '.mpeg': MATROSKA, '.mpg': MATROSKA, '.mts': BLU_RAY, '.ogv': MATROSKA,
    '.ts': TRANSPORT, '.webm': WEBM, '.wmv': MATROSKA,
}  # fmt: skip
VIDEO_SUFFIXES = tuple(CONTAINERS)


def output_suffix(suffix: str) -> str:
    """Return the suffix of the result for a video with this suffix."""
    return CONTAINERS[suffix.lower()].suffix or suffix.lower()


@dataclass(frozen=True)
class Layout:
    """What the samples of a pixel format are.

    Args:
        kind: 'gray', '420', '422', '444' or 'rgb'.
        depth: bits of a sample.
        alpha: whether there is transparency.
    """

    kind: str
    depth: int
    alpha: bool = False

    @property
    def name(self) -> str:
        """Ffmpeg's name of the planar format, without transparency."""
        base = {'gray': 'gray', 'rgb': RGB8}.get(self.kind, f'yuv{self.kind}p')
        return base if self.depth == 8 else f'{base}{self.depth}le'


def layout(pixel_format: VideoFormat) -> Layout:
    """Return the layout of a format; chroma of rare shapes is taken for the next finer one."""
    parts = [c for c in pixel_format.components if not c.is_alpha]
    alpha = len(parts) < len(pixel_format.components)
    if pixel_format.has_palette:
        return Layout('rgb', 8, alpha)
    depth = min(max(8, *(c.bits for c in parts)), 16)
    if pixel_format.is_rgb:
        return Layout('rgb', depth, alpha)
    if len(parts) == 1:
        return Layout('gray', depth, alpha)
    narrow, low = pixel_format.chroma_width(64) < 64, pixel_format.chroma_height(64) < 64
    return Layout({(True, True): '420', (True, False): '422'}.get((narrow, low), '444'), depth, alpha)


@dataclass(frozen=True)
class Choice:
    """How a video is encoded.

    Args:
        encoder: that writes it.
        layout: of the frames that it is given.
        stored: ffmpeg's name of the format that it takes, which may be packed.
    """

    encoder: Encoder
    layout: Layout
    stored: str


def choose(container: Container, source: Layout, size: tuple[int, int], lossless: bool) -> Choice:
    """Return the encoder and the format that lose the least.

    Args:
        container: that it is for.
        source: layout of the source.
        size: width, height.
        lossless: the source lost nothing, so the result shall not either.

    Raises:
        InputError: these libraries of ffmpeg have no encoder for the container.
    """
    encoders = container.lossless if lossless else container.eight if source.depth == 8 else container.deep
    best: tuple[tuple[int, int], Choice] | None = None
    for encoder in encoders:
        if encoder is HEVC and min(size) < SMALLEST_HEVC:
            continue
        for taken, stored in _formats(encoder.name).items():
            even = taken.kind in ('444', 'rgb') or not (size[0] % 2 or size[1] % 2)
            if taken.kind not in _kinds(source.kind, lossless) or (encoder.name in SINGLE_CHROMA and not even):
                continue
            missing = source.depth - taken.depth
            # too few bits are the worst, then a coarser or a larger format, then bits in vain
            cost = max(missing, 0) * 100 + _kinds(source.kind, lossless).index(taken.kind) * 20, max(-missing, 0)
            if best is None or cost < best[0]:
                best = cost, Choice(encoder, taken, stored)
    if best is None:
        names = ', '.join(encoder.name for encoder in encoders)
        raise InputError(f'this build of PyAV has no encoder for {container.title} ({names}); pip install --upgrade av')
    return best[1]


def _kinds(kind: str, lossless: bool) -> list[str]:
    """Return what a kind of source can be written as, the best first."""
    if kind == 'gray':
        return ['gray', '420', '444'] if lossless else ['420', '444', 'gray']  # few players have grey alone
    return {'420': ['420', '422', '444'], '422': ['422', '444', '420'], '444': ['444', '422', '420']}.get(
        kind, ['rgb', '444', '422', '420']
    )


@cache
def _formats(encoder: str) -> dict[Layout, str]:
    """Return the layouts that an encoder takes, with ffmpeg's names of their formats; none if it is not there."""
    try:
        formats = av.codec.Codec(encoder, 'w').video_formats or []
    except ValueError:  # also of a codec that is unknown
        return {}
    names = {f.name for f in formats}
    found = {}
    for depth in (8, 10, 12, 14, 16):
        for kind in ('gray', '420', '422', '444', 'rgb'):
            taken = Layout(kind, depth)
            if taken.name in names:
                found[taken] = taken.name
    if PACKED_RGB8 in names:
        found.setdefault(Layout('rgb', 8), PACKED_RGB8)
    return found
