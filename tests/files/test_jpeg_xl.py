"""The depth of JPEG XL: headers that libjxl wrote (by imagecodecs), and such as the standard's rows of bits make."""

from __future__ import annotations

import base64

import pytest

from ddsa_arch.files.jpeg_xl import bits_of

BARE = {
    8: '/woQUBAJCAQBAEAASxiLFcJBAR6AFgAAAAAAAA==',
    10: '/woQUBRQtAgIBAEAQABLGIsVwlGBHoBYAAAAAAAA',
    12: '/woQUBhQtAgIBAEAQABLGIsVwlGBHoBYAAAAAAAA',
}
IN_BOXES = {
    10: 'AAAADEpYTCANCocKAAAAFGZ0eXBqeGwgAAAAAGp4bCAAAAAmanhsY/8KEFAUULQICAQBAEAASxiLFcJRgR6AWAAAAAAAAA==',
    16: 'AAAADEpYTCANCocKAAAAFGZ0eXBqeGwgAAAAAGp4bCAAAAAJanhsbAoAAAAnanhsY/8KEFD8ABQtAggEAQBAAEsYixXCUYEegFgAAAAAAAA=',
    32: 'AAAADEpYTCANCocKAAAAFGZ0eXBqeGwgAAAAAGp4bCAAAAAJanhsbAoAAAA2anhsY/8KEFByAEWLCAQBAIAASzhomMKD9xUUJMVn'
    'LgDzSSyxdAAgscTSAYDEEksHAAA=',  # of floating point
}


@pytest.mark.parametrize(('bits', 'text'), [*BARE.items(), *IN_BOXES.items()])
def test_headers_of_libjxl(bits: int, text: str):
    assert bits_of(base64.b64decode(text)) == bits


def codestream(*fields: tuple[int, int]) -> bytes:
    """A codestream of fields (value, bits), the lowest bit of a byte first."""
    row = ''.join(format(value, f'0{bits}b')[::-1] for value, bits in fields)
    row += '0' * (-len(row) % 8)
    return b'\xff\x0a' + bytes(int(row[i : i + 8][::-1], 2) for i in range(0, len(row), 8))


SMALL = ((1, 1), (4, 5), (1, 3))  # 40 pixels high, square
LARGE = ((0, 1), (2, 2), (4999, 18), (0, 3), (3, 2), (400_000, 30))
FURTHER = ((0, 1), (1, 1), (5, 3))  # not as usual, further fields, turned
TEN, FOURTEEN = ((0, 1), (1, 2)), ((0, 1), (3, 2), (13, 6))


@pytest.mark.parametrize(
    ('fields', 'bits'),
    [
        ([*SMALL, (1, 1)], 8),
        ([*LARGE, (0, 1), (0, 1), *FOURTEEN], 14),
        ([*SMALL, *FURTHER, (0, 1), (0, 1), (0, 1), *TEN], 10),
        ([*SMALL, *FURTHER, (1, 1), *LARGE, (0, 1), (0, 1), *TEN], 10),
        ([*SMALL, *FURTHER, (0, 1), (1, 1), (1, 1), (2, 2), (7, 5), (0, 3), (1, 2), (0, 1), *FOURTEEN], 14),
        ([*SMALL, *FURTHER, (0, 1), (0, 1), (1, 1), (2, 2), (9, 10), (1, 2), (1, 2), (3, 3), (1, 1), *TEN], 10),
        ([*SMALL, (0, 1), (0, 1), (1, 1), (1, 2)], 16),  # half precision
    ],
)
def test_rows_of_bits(fields: list[tuple[int, int]], bits: int):
    assert bits_of(codestream(*fields, (0, 16))) == bits


def test_boxes_before_and_parts():
    stream = codestream(*SMALL, (0, 1), (0, 1), *TEN, (0, 16))
    free = (16).to_bytes(4, 'big') + b'free' + bytes(8)
    long = (1).to_bytes(4, 'big') + b'free' + (24).to_bytes(8, 'big') + bytes(8)
    part = (12 + len(stream)).to_bytes(4, 'big') + b'jxlp' + bytes(4) + stream
    assert bits_of(free + long + part) == 10
    assert bits_of(free + (0).to_bytes(4, 'big') + b'jxlc' + stream) == 10  # to the end of the file


@pytest.mark.parametrize('data', [b'', b'\xff\x0a', b'\xff\x0a\x10', bytes(40), b'\0\0\0\x10jxlc' + bytes(8)])
def test_broken_files_have_the_usual_depth(data: bytes):
    assert bits_of(data) == 8
