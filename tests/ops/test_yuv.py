import numpy as np
import pytest
from PIL import Image

from ddsa_arch.ops.yuv import BT601, BT709, BT2020, MATRICES, add_change, coding, yuv_to_rgb

# 100 % colour bars in 8 bits of studio range, from ITU-R BT.601-7 and BT.709-6: Y, Cb, Cr
BARS = {
    6: {'red': (81, 90, 240), 'green': (145, 54, 34), 'blue': (41, 240, 110), 'white': (235, 128, 128)},
    1: {'red': (63, 102, 240), 'green': (173, 42, 26), 'blue': (32, 240, 118), 'black': (16, 128, 128)},
}
RGB = {'red': (1, 0, 0), 'green': (0, 1, 0), 'blue': (0, 0, 1), 'white': (1, 1, 1), 'black': (0, 0, 0)}


def planes(values, height=6, width=8, by=(2, 2), dtype=np.uint8):
    chroma = -(-height // by[0]), -(-width // by[1])
    return [np.full(shape, v, dtype) for shape, v in zip(((height, width), chroma, chroma), values, strict=True)]


@pytest.mark.parametrize(('matrix', 'name'), [(m, name) for m, bars in BARS.items() for name in bars])
def test_colour_bars_are_those_of_the_standards(matrix, name):
    code = coding(matrix, 48, 8, full=False)
    rgb = yuv_to_rgb(planes(BARS[matrix][name]), code)
    assert np.abs(rgb - RGB[name]).max() < 0.011  # of rounding to 8 bits


def test_full_range_is_that_of_jpeg(rng):
    image = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    channels = np.asarray(image.convert('YCbCr')).transpose(2, 0, 1)
    rgb = yuv_to_rgb(list(channels), coding(5, 16, 8, full=True))
    assert np.abs(rgb * 255 - np.asarray(image)).max() < 3  # both planes of chroma are rounded


def test_players_guess_what_is_not_told():
    assert MATRICES[9] == BT2020
    assert coding(2, 480, 8, False).weights == BT601
    assert coding(2, 1080, 8, False).weights == BT709


@pytest.mark.parametrize('by', [(1, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize('size', [(6, 8), (5, 7)])
@pytest.mark.parametrize(('depth', 'full'), [(8, False), (8, True), (10, False), (12, True)])
def test_no_change_leaves_all_samples(rng, by, size, depth, full):
    dtype = np.uint8 if depth == 8 else np.uint16
    given = [rng.integers(0, 2**depth, p.shape, dtype=dtype) for p in planes((0, 0, 0), *size, by)]
    code = coding(1, 48, depth, full)
    assert yuv_to_rgb(given, code).shape == (*size, 3)
    after = add_change(given, np.zeros((*size, 3), np.float32), code)
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(given, after, strict=True))


@pytest.mark.parametrize('by', [(1, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize('matrix', [1, 6, 9])
@pytest.mark.parametrize('full', [False, True])
def test_a_change_of_the_colours_arrives(by, matrix, full):
    code = coding(matrix, 48, 10, full)
    given = planes((400, 500, 560), by=by, dtype=np.uint16)
    before = yuv_to_rgb(given, code)
    change = np.broadcast_to(np.float32([0.1, -0.05, 0.02]), before.shape)
    after = yuv_to_rgb(add_change(given, change, code), code)
    assert np.abs(after - before - change).max() < 3 / 1023


def test_grey_and_rgb_planes():
    grey = [np.full((4, 4), 100, np.uint8)]
    code = coding(2, 4, 8, True)
    assert yuv_to_rgb(grey, code)[0, 0].tolist() == pytest.approx([100 / 255] * 3)
    assert add_change(grey, np.full((4, 4, 3), 10 / 255, np.float32), code)[0][0, 0] == 110
    planar = [np.full((4, 4), v, np.uint16) for v in (1, 2, 3)]  # green, blue, red
    code = coding(0, 4, 16, False, rgb=True)
    assert np.allclose(yuv_to_rgb(planar, code)[0, 0] * 65535, [3, 1, 2])
    changed = add_change(planar, np.float32([5, 6, 7]) / 65535 * np.ones((4, 4, 3), np.float32), code)
    assert [int(p[0, 0]) for p in changed] == [7, 9, 8]
