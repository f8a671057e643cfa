import numpy as np
import pytest

from ddsa_arch.errors import InputError
from ddsa_arch.ops.pixels import from_rgb, to_rgb


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float16', 'float32', 'float64'])
@pytest.mark.parametrize('shape', [(5, 4), (5, 4, 1), (5, 4, 2), (5, 4, 3), (5, 4, 4), (1, 1, 3)])
@pytest.mark.parametrize('bgr', [False, True])
def test_pixels_come_back_as_they_were(rng, dtype, shape, bgr):
    values = rng.integers(0, 65536, shape) if dtype == 'uint16' else rng.integers(0, 256, shape)
    image = values.astype(dtype) if dtype.startswith('u') else (values / 255).astype(dtype)
    rgb, alpha = to_rgb(image, bgr)
    assert rgb.dtype == np.float32
    assert rgb.shape == (*shape[:2], 3)
    back = from_rgb(rgb, image, alpha, bgr)
    assert back.dtype == image.dtype
    assert back.shape == image.shape
    if dtype.startswith('u'):
        assert np.array_equal(back, image)
    else:
        assert np.abs(back.astype(float) - image).max() <= 1e-3


def test_the_colours_are_those_of_the_order():
    image = np.zeros((1, 1, 4), np.uint8)
    image[..., 0], image[..., 3] = 255, 7
    rgb, alpha = to_rgb(image)
    assert rgb[0, 0].tolist() == [1, 0, 0]
    assert alpha.tolist() == [[7]]
    assert to_rgb(image, bgr=True)[0][0, 0].tolist() == [0, 0, 1]


def test_grey_is_the_luma_of_what_a_network_makes_of_it():
    """BT.601: 0.299 R + 0.587 G + 0.114 B."""
    rgb = np.array([[[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]], np.float32)
    assert from_rgb(rgb, np.zeros((1, 3), np.uint8), None).tolist() == [[76, 150, 29]]


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (np.zeros((4, 4, 3), np.int32), 'int32 cannot be used; wanted uint8'),
        (np.zeros((4, 4, 5), np.uint8), r'\(4, 4, 5\) is no image'),
        (np.zeros((4,), np.uint8), r'\(4,\) is no image'),
        (np.zeros((0, 4, 3), np.uint8), r'\(0, 4, 3\) is no image'),
        (np.full((2, 2, 3), 255.0), r'in \[0, 1\]; this one goes from 255 to 255'),
        (np.full((2, 2, 3), -0.5), r'in \[0, 1\]'),
        (np.full((2, 2, 3), np.nan), r'in \[0, 1\]'),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(InputError, match=message):
        to_rgb(image)
