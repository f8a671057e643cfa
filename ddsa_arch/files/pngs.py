"""PNG files chunk by chunk: what Pillow and OpenCV do not keep, and 16 bits for a channel."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from ddsa_arch.errors import InputError

SIGNATURE = b'\x89PNG\r\n\x1a\n'
HEADER, DATA, END, TRANSPARENT = b'IHDR', b'IDAT', b'IEND', b'tRNS'
GREY, COLOUR, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 4, 6  # colour types
PALETTE = 3
COLOUR_SPACE = (b'cICP', b'gAMA', b'cHRM', b'sRGB', b'mDCV', b'cLLI', b'mDCv', b'cLLi')  # the last two: drafts
HDR = {16: 'PQ', 18: 'HLG'}  # transfer functions of cICP
METADATA = (b'eXIf', b'iCCP', b'iTXt', b'tEXt', b'zTXt', b'tIME')
ROWS = 512  # that are packed at a time
PAETH = 4  # filter
LARGEST = 2**30  # pixels that OpenCV decodes


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield the chunks of a PNG as (kind, content, all of its bytes), as far as they are whole."""
    at = len(SIGNATURE)
    while at + 12 <= len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], 'big')
        if end > len(png):
            return
        yield png[at + 4 : at + 8], png[at + 8 : end - 4], png[at:end]
        at = end


def made_chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk with its length and checksum."""
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))


def without_chunks(png: bytes, kinds: Iterable[bytes]) -> bytes:
    """Return a PNG without the chunks of some kinds."""
    kinds = tuple(kinds)
    return SIGNATURE + b''.join(whole for kind, _, whole in chunks(png) if kind not in kinds)


def with_chunks(png: bytes, added: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a PNG with chunks added behind its header; the PNG's own of the same kinds are dropped."""
    added = list(added)
    kinds = [kind for kind, _ in added]
    parts = [whole for kind, _, whole in chunks(png) if kind not in kinds]
    return SIGNATURE + parts[0] + b''.join(made_chunk(*one) for one in added) + b''.join(parts[1:])


def depth_and_colours(png: bytes) -> tuple[int, int]:
    """Return the bits of a channel and the colour type."""
    return png[24], png[25]


def transparent_value(png: bytes) -> tuple[int, ...] | None:
    """Return the one grey value or colour that counts as transparent, in the range of the decoded pixels, or None."""
    bits, colours = depth_and_colours(png)
    content = next((content for kind, content, _ in chunks(png) if kind == TRANSPARENT), None)
    wanted = {GREY: 1, COLOUR: 3}.get(colours)
    if content is None or wanted is None or len(content) < 2 * wanted:
        return None
    values = struct.unpack(f'>{wanted}H', content[: 2 * wanted])
    return tuple((value & (2**bits - 1)) * 255 // (2**bits - 1) if bits < 8 else value for value in values)


def alpha_of(pixels: np.ndarray, value: tuple[int, ...]) -> np.ndarray:
    """Return alpha ``(H, W)`` that is 0 where the pixels have a value, and full elsewhere."""
    same = pixels == value[0] if pixels.ndim == 2 else (pixels == np.array(value, pixels.dtype)).all(axis=2)
    return np.where(same, 0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)


def colour_space(png: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return the chunks that tell how colours are to be seen, each as (kind, content)."""
    return tuple((kind, content) for kind, content, _ in chunks(png) if kind in COLOUR_SPACE)


def hdr_name(space: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return PQ or HLG if the colours are of high dynamic range, else None."""
    content = dict(space).get(b'cICP', b'')
    return HDR.get(content[1]) if len(content) == 4 else None


def decode_sixteen_bits(png: bytes) -> np.ndarray:
    """Return the pixels of a PNG of 16 bits, ``(H, W)`` or ``(H, W, 2 to 4)`` RGB, without its transparent colour.

    Raises:
        InputError: it is damaged or cut off, of which OpenCV does not tell.
    """
    ended = False
    for kind, content, whole in chunks(png):
        if kind[:1].isupper() and zlib.crc32(kind + content) != int.from_bytes(whole[-4:], 'big'):
            raise InputError(f'damaged (the checksum of {kind.decode("latin-1")} is wrong)')
        ended = kind == END
    if not ended:
        raise InputError('truncated (it has no end)')
    width, height = struct.unpack('>II', png[16:24])
    if width * height > LARGEST:
        raise InputError(f'{width} x {height} pixels of 16 bits are not taken; save it in parts')
    plain = without_chunks(png, (TRANSPARENT, *METADATA, *COLOUR_SPACE, b'acTL', b'fcTL', b'fdAT'))
    pixels = cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise InputError('cannot be decoded (16 bits for a channel, of a kind that OpenCV does not know)')
    if depth_and_colours(png)[1] == GREY_ALPHA and pixels.ndim == 3 and pixels.shape[2] == 4:
        return pixels[..., [0, 3]]
    return pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]


def encode_sixteen_bits(pixels: np.ndarray) -> bytes:
    """Return a PNG of 16 bits for a channel: ``(H, W)`` grey, or ``(H, W, C)`` with 2 to 4 channels."""
    values = pixels[..., None] if pixels.ndim == 2 else pixels
    height, width, channels = values.shape
    colours = {1: GREY, 2: GREY_ALPHA, 3: COLOUR, 4: COLOUR_ALPHA}[channels]
    parts = [made_chunk(HEADER, struct.pack('>IIBBBBB', width, height, 16, colours, 0, 0, 0))]
    packer = zlib.compressobj(4)
    above = np.zeros((1, width * channels * 2), np.uint8)
    for top in range(0, height, ROWS):
        rows = values[top : top + ROWS].astype('>u2').reshape(-1, width * channels).view(np.uint8)
        filtered = _paeth(rows, np.concatenate([above, rows[:-1]]), 2 * channels)
        above = rows[-1:]
        if packed := packer.compress(filtered.tobytes()):
            parts.append(made_chunk(DATA, packed))
    return SIGNATURE + b''.join([*parts, made_chunk(DATA, packer.flush()), made_chunk(END, b'')])


def _paeth(rows: np.ndarray, above: np.ndarray, step: int) -> np.ndarray:
    """Return rows as PNG's fourth filter stores them: the difference to the nearest of left, above and above left.

    Args:
        rows: ``(N, B)`` bytes.
        above: the row above each, of the same shape.
        step: bytes of a pixel.
    """
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    left[:, step:], corner[:, step:] = rows[:, :-step], above[:, :-step]
    a, b, c = (part.astype(np.int16) for part in (left, above, corner))
    to_left, to_above, to_corner = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    first = (to_left <= to_above) & (to_left <= to_corner)
    nearest = np.where(first, left, np.where(to_above <= to_corner, above, corner))
    out = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    out[:, 0] = PAETH
    out[:, 1:] = rows - nearest
    return out
