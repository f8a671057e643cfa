"""NIQE and BRISQUE at their limits, and against values from elsewhere."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from basicsr.metrics import calculate_metric
from basicsr.metrics.niqe import calculate_niqe

from ddsa_arch.errors import InputError
from ddsa_arch.files.images import read_image
from ddsa_arch.metrics import brisque as brisque_module
from ddsa_arch.metrics.brisque import brisque, brisque_features, regression
from ddsa_arch.metrics.derain_metric import derain_brisque, derain_niqe

needs_model = pytest.mark.skipif(find_spec('brisque') is None, reason='the package brisque is not installed')


@needs_model
@pytest.mark.parametrize(('photo_name', 'score'), [('camera', -13.7084), ('coins', -5.1), ('moon', 1.4)])
def test_brisque_of_known_photos(photo_name, score):
    """Computed by others for scikit-image's photos with the same model: VMAF-x, research digest 1101, 'oracle'."""
    image = read_image(Path(find_spec('skimage').origin).parent / 'data' / f'{photo_name}.png')
    digits = len(str(score).split('.')[1])
    assert brisque(image) == pytest.approx(score, abs=0.6 * 10**-digits)


@needs_model
def test_the_regression_is_libsvms(photo):
    """libsvm, where the package's needs are installed too, on the same features."""
    svmutil = pytest.importorskip('libsvm.svmutil')
    model = svmutil.svm_load_model(str(Path(find_spec('brisque').origin).parent / 'models' / 'svm.txt'))
    features = brisque_features(photo)
    trained = regression()
    scaled = 2 * (features - trained.low) / (trained.high - trained.low) - 1
    (expected,), _, _ = svmutil.svm_predict([], [scaled.tolist()], model, '-q')
    assert trained.score(features) == pytest.approx(expected, abs=1e-9)


@needs_model
def test_noise_and_softness_raise_both_scores(photo, rng):
    noisy = np.clip(photo + rng.normal(0, 25, photo.shape), 0, 255).astype(np.uint8)
    blocks = np.repeat(np.repeat(photo[::8, ::8], 8, 0), 8, 1)
    for metric in (derain_niqe, derain_brisque):
        assert metric(photo) < metric(noisy)
        assert metric(photo) < metric(blocks)


def test_niqe_is_basicsrs_but_for_its_single_precision(photo):
    assert derain_niqe(photo) == pytest.approx(calculate_niqe(photo, 0), abs=1e-2)


@needs_model
def test_option_files_reach_them_with_and_without_a_target(photo):
    for kind in ('derain_niqe', 'derain_brisque'):
        with_target = calculate_metric({'img': photo, 'img2': photo}, {'type': kind, 'better': 'lower'})
        assert with_target == calculate_metric({'img': photo, 'img2': None}, {'type': kind})


@needs_model
@pytest.mark.parametrize('value', [0, 255])
def test_an_image_without_texture_is_refused(value):
    flat = np.full((200, 200, 3), value, np.uint8)
    with pytest.raises(InputError, match='NIQE says nothing about an image without texture'):
        derain_niqe(flat)
    with pytest.raises(InputError, match='BRISQUE says nothing about an image without texture'):
        derain_brisque(flat)


@needs_model
def test_too_small_images_are_refused_with_their_size(photo):
    with pytest.raises(InputError, match='NIQE needs at least 2 blocks of 96 x 96 pixels, the image is 191 x 100'):
        derain_niqe(photo[:191, :100])
    assert np.isfinite(derain_niqe(photo[:192, :100]))
    with pytest.raises(InputError, match='BRISQUE needs at least 14 x 14 pixels, got 13 x 100'):
        derain_brisque(photo[:13, :100])
    assert np.isfinite(derain_brisque(photo[:14, :100]))


def test_floats_are_refused(photo):
    with pytest.raises(InputError, match=r'BRISQUE takes uint8 images \(H, W, 3\), got float64'):
        derain_brisque(photo / 255)


def test_a_missing_model_is_named_with_the_command_that_brings_it(photo, monkeypatch):
    monkeypatch.setattr(sys, 'path', [])
    monkeypatch.delitem(sys.modules, 'brisque', raising=False)
    brisque_module.regression.cache_clear()
    with pytest.raises(InputError, match='pip install --no-deps brisque'):
        derain_brisque(photo)
    brisque_module.regression.cache_clear()
