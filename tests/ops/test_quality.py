import math

import numpy as np
import pytest
from basicsr.metrics import calculate_psnr, calculate_ssim
from helpers import noise
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ddsa_arch.errors import InputError
from ddsa_arch.ops.color import luma
from ddsa_arch.ops.quality import psnr_y, ssim_y

SHAPES = [(11, 11), (12, 40), (33, 21), (48, 64)]


def degraded(image, spread, seed=1):
    error = np.random.default_rng(seed).normal(0, spread, image.shape)
    return np.clip(image + error, 0, 255).round().astype(np.uint8)


@pytest.fixture
def pair(photo):
    target = photo[100:148, 150:214]
    return degraded(target, 6), target


def matlab_y(image):
    """rgb2ycbcr of scikit-image, rounded half up as MATLAB rounds a positive number."""
    return np.floor(rgb2ycbcr(image[..., ::-1])[..., 0] + 0.5)


def skimage_ssim(y1, y2):
    _, similarity = structural_similarity(
        y1, y2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, full=True
    )
    return similarity[5:-5, 5:-5].mean()


# Y


def test_y_is_that_of_scikit_image():
    image = noise(40, 50)
    assert np.abs(luma(image, rounded=False) - rgb2ycbcr(image[..., ::-1])[..., 0]).max() < 1e-12
    assert np.array_equal(luma(image, rounded=True), matlab_y(image))


def test_y_of_known_colours():
    black, white, red, green, blue = (np.array([[c]], np.uint8) for c in (
        [0, 0, 0], [255, 255, 255], [0, 0, 255], [0, 255, 0], [255, 0, 0],
    ))  # fmt: skip
    known = [(black, 16), (white, 235), (red, 81.481), (green, 144.553), (blue, 40.966)]  # ITU-R BT.601
    for image, y in known:
        assert luma(image, rounded=False).item() == pytest.approx(y, abs=1e-9)
        assert luma(image, rounded=True).item() == round(y)


@pytest.mark.parametrize(
    ('blue', 'green', 'red', 'y'), [(68, 204, 0, 126), (141, 44, 2, 53), (109, 194, 4, 126), (150, 184, 8, 126)]
)
def test_half_a_grey_level_is_rounded_up(blue, green, red, y):
    """In floating point these colours come out just below the half."""
    doubled = 2 * (65481 * red + 128553 * green + 24966 * blue + 16 * 255000)
    assert doubled == (2 * y - 1) * 255000  # exactly y - 1/2
    assert luma(np.array([[[blue, green, red]]], np.uint8), rounded=True).item() == y


# Protocol `paper`


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('spread', [1, 10, 60])
def test_paper_ssim_is_scikit_images_on_rounded_y(shape, spread):
    target = noise(*shape)
    image = degraded(target, spread)
    expected = skimage_ssim(matlab_y(image), matlab_y(target))
    assert ssim_y(image, target) == pytest.approx(expected, abs=1e-10)


@pytest.mark.core
def test_paper_figures_of_a_photo_are_scikit_images(pair):
    image, target = pair
    expected = peak_signal_noise_ratio(matlab_y(target), matlab_y(image), data_range=255)
    assert psnr_y(image, target) == pytest.approx(expected, abs=1e-10)
    assert ssim_y(image, target) == pytest.approx(skimage_ssim(matlab_y(image), matlab_y(target)), abs=1e-10)


def test_border_is_cropped_on_all_sides(pair):
    image, target = pair
    inner = (image[3:-3, 3:-3], target[3:-3, 3:-3])
    assert psnr_y(image, target, crop_border=3) == psnr_y(*inner)
    assert ssim_y(image, target, crop_border=3) == ssim_y(*inner)
    spoilt = image.copy()
    spoilt[:3] = spoilt[-3:] = spoilt[:, :3] = spoilt[:, -3:] = 0
    assert psnr_y(spoilt, target, crop_border=3) == psnr_y(image, target, crop_border=3)


def test_psnr_of_black_and_white_by_hand():
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    expected = 20 * math.log10(255 / 219)  # Y is 16 and 235
    for protocol in ('paper', 'basicsr'):
        assert psnr_y(white, black, protocol=protocol) == pytest.approx(expected, abs=1e-12)


def test_protocols_differ_by_the_rounding():
    """One grey level of blue moves Y by 24.966 / 255, which rounds to nothing."""
    black = np.zeros((4, 4, 3), np.uint8)
    image = black.copy()
    image[..., 0] = 1
    assert psnr_y(image, black, protocol='paper') == math.inf
    expected = 20 * math.log10(255 / (24.966 / 255))
    assert psnr_y(image, black, protocol='basicsr') == pytest.approx(expected, abs=1e-9)


# Protocol `basicsr`: BasicSR computes Y in float32 (steps of 1.5e-5 at 235)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('spread', [1, 10, 60])
def test_basicsr_figures_are_basicsrs(shape, spread):
    target = noise(*shape)
    image = degraded(target, spread)
    stock = {'crop_border': 0, 'test_y_channel': True}
    assert psnr_y(image, target, protocol='basicsr') == pytest.approx(calculate_psnr(image, target, **stock), abs=5e-5)
    assert ssim_y(image, target, protocol='basicsr') == pytest.approx(calculate_ssim(image, target, **stock), abs=1e-7)


@pytest.mark.core
def test_basicsr_figures_of_a_photo_are_basicsrs(pair):
    stock = {'crop_border': 4, 'test_y_channel': True}
    ours = {'crop_border': 4, 'protocol': 'basicsr'}
    assert psnr_y(*pair, **ours) == pytest.approx(calculate_psnr(*pair, **stock), abs=5e-5)
    assert ssim_y(*pair, **ours) == pytest.approx(calculate_ssim(*pair, **stock), abs=1e-7)


# Limits


@pytest.mark.parametrize('protocol', ['paper', 'basicsr'])
def test_equal_images_are_infinitely_good(protocol):
    image = noise(16, 16)
    assert psnr_y(image, image.copy(), protocol=protocol) == math.inf
    assert ssim_y(image, image.copy(), protocol=protocol) == pytest.approx(1, abs=1e-12)


def test_both_figures_are_symmetric_and_python_floats(pair):
    image, target = pair
    for metric in (psnr_y, ssim_y):
        assert type(metric(image, target)) is float
        assert metric(image, target) == pytest.approx(metric(target, image), abs=1e-12)


@pytest.mark.parametrize('metric', [psnr_y, ssim_y])
def test_unusable_input_is_named(metric):
    image = noise(16, 16)
    with pytest.raises(InputError, match=r'\(16, 16, 3\), its target \(16, 15, 3\)'):
        metric(image, image[:, :15])
    with pytest.raises(InputError, match='uint8 images, got float32 and uint8'):
        metric(image.astype(np.float32), image)
    with pytest.raises(InputError, match='crop_border 8 leaves nothing'):
        metric(image, image, crop_border=8)
    with pytest.raises(InputError, match="protocol 'matlab' is not known; choose one of paper, basicsr"):
        metric(image, image, protocol='matlab')


def test_image_smaller_than_the_window_has_no_ssim():
    with pytest.raises(InputError, match='at least 11 x 11 pixels, got 10 x 30'):
        ssim_y(noise(10, 30), noise(10, 30))
    with pytest.raises(InputError, match='got 10 x 10'):
        ssim_y(noise(16, 16), noise(16, 16), crop_border=3)
