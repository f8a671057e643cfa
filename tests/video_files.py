"""Small videos of every kind, made and told by PyAV alone, without the code that is tested."""

from fractions import Fraction

import av
import numpy as np

SIZE = 64, 48
RATE = 44100


def pattern(index, height=48, width=64):
    """A smooth picture that moves, (height, width) in 0 ... 1."""
    rows, columns = np.mgrid[:height, :width]
    return 0.5 + 0.4 * np.sin((columns + 3 * index) / 9) * np.cos(rows / 7)


def fill(frame, index, values=None):
    """Fill the planes of a frame, with the pattern or with one value for each plane."""
    depth = frame.format.components[0].bits
    for number, plane in enumerate(frame.planes):
        kind = np.dtype(np.uint8 if depth == 8 else '<u2')
        lines = np.frombuffer(memoryview(plane), kind).reshape(plane.height, -1)
        if values is None:
            step = plane.line_size // kind.itemsize
            lines[:] = np.rint((16 + 219 * pattern(index, plane.height, step)) * 2 ** (depth - 8))
        else:
            lines[:] = values[number]


def make_video(
    path,
    codec='libx264',
    pixels='yuv420p',
    frames=8,
    size=SIZE,
    stamps=None,
    base=Fraction(1, 25),
    values=None,
    options=None,
    sound=(),
    before=None,
    form=None,
    tags=(),
    **properties,
):
    """Write a video.

    Args:
        stamps: of the frames, in ``base``; one after the other if None.
        values: for each plane, in all frames; a pattern that moves if None.
        sound: (codec, seconds at which it begins, language) of each track.
        before: called with the container and the stream before anything is encoded.
        tags: matrix, primaries, transfer curve and range.
        properties: of the stream's codec.
    """
    with av.open(str(path), 'w', format=form) as out:
        stream = out.add_stream(codec, rate=round(1 / base) if base > Fraction(1, 200) else 25, options=options or {})
        context = stream.codec_context
        context.width, context.height = size
        context.pix_fmt, context.time_base, stream.time_base = pixels, base, base
        for name, value in zip(('colorspace', 'color_primaries', 'color_trc', 'color_range'), tags, strict=False):
            setattr(context, name, value)
        for name, value in properties.items():
            setattr(context, name, value)
        tracks = []
        for name, begin, language in sound:
            track = out.add_stream(name, rate=RATE)
            track.codec_context.layout, track.codec_context.bit_rate = 'mono', 64000
            track.metadata['language'] = language
            tracks.append((track, begin))
        if before:
            before(out, stream)
        packets = []
        for index in range(frames):
            frame = av.VideoFrame(*size, pixels)
            fill(frame, index, values)
            frame.pts, frame.time_base = index if stamps is None else stamps[index], base
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for track, begin in tracks:
            packets += tone(track, begin)
        out.start_encoding()
        out.mux(sorted(packets, key=lambda packet: packet.dts * packet.time_base))
    return path


def tone(track, begin, seconds=0.4):
    """The packets of a tone that begins at some time."""
    kind = track.codec_context.format.name
    size = track.codec_context.frame_size or 1024
    packets = []
    for start in range(0, int(seconds * RATE), size):
        wave = np.sin(np.arange(start, start + size) / 20)[None] * 0.3
        scale = {'s16': 2**15, 's16p': 2**15, 's32': 2**31}.get(kind, 1)
        data = (wave * scale).astype({'s16': 'i2', 's16p': 'i2', 's32': 'i4'}.get(kind, 'f4'))
        frame = av.AudioFrame.from_ndarray(data, format=kind, layout='mono')
        frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
        frame.pts = start + round(begin * RATE)
        packets += track.encode(frame)
    return packets + track.encode(None)


def told(path):
    """What a file holds: streams, exact time stamps, tags, the bytes of its other streams."""
    found = {'packets': {}, 'frames': []}
    with open(path, 'rb') as file, av.open(file) as source:
        picture = next(s for s in source.streams.video if not s.disposition & av.stream.Disposition.attached_pic)
        found['streams'] = [(s.type, s.codec_context and s.codec_context.codec.canonical_name) for s in source.streams]
        found['languages'] = [s.language for s in source.streams]
        found['chapters'] = [(c['start'] * c['time_base'], c['metadata'].get('title')) for c in source.chapters()]
        found['metadata'] = source.metadata
        found['aspect'], found['time_base'] = picture.sample_aspect_ratio, picture.time_base
        found['codec'] = picture.codec_context.codec.canonical_name
        for packet in source.demux():
            if packet.stream.index == picture.index:
                found['frames'] += picture.decode(packet if packet.size else None)
            elif packet.size:
                held = ((packet.pts or 0) * packet.time_base, bytes(packet))
                found['packets'].setdefault(packet.stream.index, []).append(held)
        found['times'] = [frame.pts * picture.time_base for frame in found['frames']]
    first = found['frames'][0]
    found['tags'] = tuple(map(int, (first.colorspace, first.color_primaries, first.color_trc, first.color_range)))
    found['size'], found['pixels'], found['rotation'] = (first.width, first.height), first.format.name, first.rotation
    return found


def grey(path):
    """The mean of luma of each frame, in 8 bits."""
    frames = told(path)['frames']
    depth = frames[0].format.components[0].bits
    kind = np.uint8 if depth == 8 else '<u2'
    planes = [(np.frombuffer(memoryview(f.planes[0]), kind), f.planes[0], f.width) for f in frames]
    return [
        float(values.reshape(plane.height, -1)[:, :width].mean()) / 2 ** (depth - 8) for values, plane, width in planes
    ]
