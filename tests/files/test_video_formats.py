import av
import pytest

from ddsa_arch.errors import InputError
from ddsa_arch.files import video_formats
from ddsa_arch.files.video_formats import MATROSKA, MP4, WEBM, Layout, choose, layout


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('yuv420p', Layout('420', 8)),
        ('yuvj422p', Layout('422', 8)),
        ('nv12', Layout('420', 8)),
        ('p010le', Layout('420', 10)),
        ('yuv411p', Layout('422', 8)),
        ('yuv440p', Layout('444', 8)),
        ('yuva444p12le', Layout('444', 12, True)),
        ('gray', Layout('gray', 8)),
        ('monow', Layout('gray', 8)),
        ('ya16le', Layout('gray', 16, True)),
        ('pal8', Layout('rgb', 8)),
        ('rgb565le', Layout('rgb', 8)),
        ('bgra', Layout('rgb', 8, True)),
        ('gbrp10le', Layout('rgb', 10)),
        ('rgb48be', Layout('rgb', 16)),
    ],
)
def test_layouts(name, expected):
    assert layout(av.VideoFormat(name, 64, 64)) == expected


@pytest.mark.parametrize(
    ('container', 'source', 'size', 'lossless', 'encoder', 'stored'),
    [
        (MP4, Layout('420', 8), (64, 48), False, 'libx264', 'yuv420p'),
        (MP4, Layout('420', 8), (63, 48), False, 'libx264', 'yuv444p'),
        (MP4, Layout('gray', 8), (64, 48), False, 'libx264', 'yuv420p'),
        (MP4, Layout('rgb', 8), (64, 48), False, 'libx265', 'gbrp'),
        (MP4, Layout('420', 9), (64, 48), False, 'libx265', 'yuv420p10le'),
        (MP4, Layout('422', 10), (16, 16), False, 'libx264', 'yuv422p10le'),
        (MP4, Layout('444', 16), (64, 48), False, 'libx265', 'yuv444p12le'),
        (MP4, Layout('420', 8), (64, 48), True, 'libx265', 'yuv420p'),
        (MATROSKA, Layout('rgb', 8), (63, 47), True, 'ffv1', 'bgr0'),
        (MATROSKA, Layout('gray', 16), (64, 48), True, 'ffv1', 'gray16le'),
        (MATROSKA, Layout('420', 8), (63, 47), True, 'ffv1', 'yuv420p'),
        (WEBM, Layout('420', 8), (63, 47), False, 'libvpx-vp9', 'yuv420p'),
        (WEBM, Layout('420', 10), (64, 48), False, 'libsvtav1', 'yuv420p10le'),
        (WEBM, Layout('444', 10), (64, 48), False, 'libsvtav1', 'yuv420p10le'),
    ],
)
def test_what_loses_least_is_chosen(container, source, size, lossless, encoder, stored):
    choice = choose(container, source, size, lossless)
    assert (choice.encoder.name, choice.stored) == (encoder, stored)


def test_another_encoder_is_taken_where_one_is_missing(monkeypatch):
    there = video_formats._formats
    monkeypatch.setattr(video_formats, '_formats', lambda name: {} if name == 'libx265' else there(name))
    choice = choose(MP4, Layout('420', 10), (64, 48), False)
    assert (choice.encoder.name, choice.stored) == ('libx264', 'yuv420p10le')
    with pytest.raises(InputError, match=r'no encoder for MP4 \(libx265\); pip install --upgrade av'):
        choose(MP4, Layout('420', 10), (64, 48), True)


def test_an_unknown_encoder_takes_nothing():
    assert video_formats._formats('none of ours') == {}
