"""How deep the channels of a JPEG XL are, which Pillow's plug-in keeps to itself.

The header of a codestream is a row of bits, the lowest of each byte first (ISO/IEC 18181-1, image metadata).
"""

from __future__ import annotations

CODESTREAM = b'\xff\x0a'
WHOLE, FIRST_PART = b'jxlc', b'jxlp'  # boxes of a container that a codestream begins in
SIDES = ((9, 1), (13, 1), (18, 1), (30, 1))  # a side of an image: bits, and what is added
PREVIEW_EIGHTHS = ((0, 16), (0, 32), (5, 1), (9, 33))
PREVIEW_SIDES = ((6, 1), (8, 65), (10, 321), (12, 1345))
TICKS = ((0, 100), (0, 1000), (10, 1), (30, 1))
TICKS_BELOW = ((0, 1), (0, 1001), (8, 1), (10, 1))
LOOPS = ((0, 0), (3, 0), (16, 0), (32, 0))
DEPTHS = ((0, 8), (0, 10), (0, 12), (6, 1))
FLOAT_DEPTHS = ((0, 32), (0, 16), (0, 24), (6, 1))


def bits_of(data: bytes) -> int:
    """The bits of a channel of a JPEG XL, of integers or of floating point.

    Args:
        data: the file; what ends or errs before it tells has 8 bits.
    """
    try:
        return _depth(_Bits(_codestream(data)))
    except (IndexError, ValueError):
        return 8


def _codestream(data: bytes) -> bytes:
    """Return the file from where its codestream begins, after the two bytes that mark it."""
    at = 0
    while not data.startswith(CODESTREAM, at):
        length, kind = int.from_bytes(data[at : at + 4], 'big'), data[at + 4 : at + 8]
        if kind in (WHOLE, FIRST_PART):
            at += (16 if length == 1 else 8) + (4 if kind == FIRST_PART else 0)
            if not data.startswith(CODESTREAM, at):
                raise ValueError('no codestream in its box')
            break
        if length == 1:
            length = int.from_bytes(data[at + 8 : at + 16], 'big')
        if length < 8:
            raise ValueError('no box')
        at += length
    return data[at + len(CODESTREAM) :]


class _Bits:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> int:
        value = 0
        for i in range(count):
            value |= (self.data[self.at >> 3] >> (self.at & 7) & 1) << i
            self.at += 1
        return value

    def choose(self, ways: tuple[tuple[int, int], ...]) -> int:
        bits, more = ways[self.take(2)]
        return self.take(bits) + more


def _depth(bits: _Bits) -> int:
    _skip_size(bits)
    if bits.take(1):  # all is as usual
        return 8
    if bits.take(1):  # further fields
        bits.take(3)  # orientation
        if bits.take(1):  # intrinsic size
            _skip_size(bits)
        if bits.take(1):  # preview
            _skip_preview(bits)
        if bits.take(1):  # animation
            bits.choose(TICKS)
            bits.choose(TICKS_BELOW)
            bits.choose(LOOPS)
            bits.take(1)
    return bits.choose(FLOAT_DEPTHS if bits.take(1) else DEPTHS)


def _skip_size(bits: _Bits) -> None:
    small = bits.take(1)
    _skip_side(bits, small)
    if not bits.take(3):  # no ratio of the sides
        _skip_side(bits, small)


def _skip_side(bits: _Bits, small: int) -> None:
    if small:
        bits.take(5)  # in units of 8 pixels
    else:
        bits.choose(SIDES)


def _skip_preview(bits: _Bits) -> None:
    ways = PREVIEW_EIGHTHS if bits.take(1) else PREVIEW_SIDES
    bits.choose(ways)
    if not bits.take(3):  # no ratio of the sides
        bits.choose(ways)
