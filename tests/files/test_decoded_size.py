"""How large an image is, and whether the memory is enough for it, before it is decoded."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ddsa_arch.errors import InputError
from ddsa_arch.files import decoded_size
from ddsa_arch.files.decoded_size import check_memory, image_size, left_in_container
from ddsa_arch.files.images import decode_image
from ddsa_arch.files.photos import read_photo


@pytest.mark.parametrize(
    ('files', 'left'),
    [
        ({'memory.max': '1000', 'memory.current': '400'}, 600),
        ({'memory.max': 'max', 'memory.current': '400'}, float('inf')),
        ({'memory/memory.limit_in_bytes': '50', 'memory/memory.usage_in_bytes': '60'}, 0),
        ({}, float('inf')),
    ],
)
def test_the_limit_of_a_container_holds(tmp_path, files, left):
    (tmp_path / 'memory').mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert left_in_container(tmp_path) == left


@pytest.mark.parametrize(
    ('kind', 'how'),
    [
        ('PNG', {}), ('JPEG', {'comment': b'rain' * 99}), ('BMP', {}), ('TIFF', {}), ('WEBP', {}),
        ('WEBP', {'lossless': True}), ('WEBP', {'exif': b'Exif'}), ('GIF', {}),
    ],
)  # fmt: skip
def test_the_size_is_told_by_the_header(kind, how):
    out = io.BytesIO()
    Image.new('RGB', (37, 21)).save(out, kind, **how)
    assert image_size(out.getvalue()) == (37, 21)
    assert image_size(out.getvalue()[:3]) is None
    assert image_size(b'') is None


def bomb(side):
    """A PNG whose header tells of a square of so many pixels."""
    head = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    parts = [(b'IHDR', head), (b'IDAT', zlib.compress(bytes(1000))), (b'IEND', b'')]
    whole = (struct.pack('>I', len(c)) + k + c + struct.pack('>I', zlib.crc32(k + c)) for k, c in parts)
    return b'\x89PNG\r\n\x1a\n' + b''.join(whole)


def test_an_image_is_refused_by_the_memory_that_it_needs(tmp_path, monkeypatch):
    (tmp_path / 'a.png').write_bytes(bomb(30_000))
    monkeypatch.setattr(decoded_size, 'available_memory', lambda: 2e9)
    for read in (lambda: decode_image(bomb(30_000), 'a.png'), lambda: read_photo(tmp_path / 'a.png')):
        with pytest.raises(InputError, match=r'a.png: 30000 x 30000 pixels need \S+ GB of memory, and 2.0 GB are free'):
            read()
    check_memory((10_000, 10_000), 14)


def test_pillow_keeps_its_limit(tmp_path):
    before = Image.MAX_IMAGE_PIXELS
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / 'a.png')
    read_photo(tmp_path / 'a.png')
    assert before == Image.MAX_IMAGE_PIXELS
