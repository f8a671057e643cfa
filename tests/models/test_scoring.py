import math

import numpy as np
import pytest

from ddsa_arch.models.scoring import IDENTICAL, needs_target, score_image

BOTH = {'psnr': {'type': 'derain_psnr'}, 'ssim': {'type': 'derain_ssim'}}


def test_which_metrics_need_a_target():
    needing = {m: needs_target(m) for m in ('derain_psnr', 'calculate_ssim', 'derain_niqe', 'calculate_niqe')}
    assert needing == {'derain_psnr': True, 'calculate_ssim': True, 'derain_niqe': False, 'calculate_niqe': False}


def test_identical_images_have_infinite_psnr_and_a_note(photo):
    values, note = score_image(photo, photo.copy(), BOTH)
    assert values['psnr'] == math.inf
    assert values['ssim'] == pytest.approx(1)
    assert note == IDENTICAL


def test_an_image_too_small_for_one_metric_keeps_the_other():
    image = np.arange(10 * 30 * 3, dtype=np.uint8).reshape(10, 30, 3)
    values, note = score_image(image, 255 - image, BOTH)
    assert math.isfinite(values['psnr'])
    assert math.isnan(values['ssim'])
    assert note == 'SSIM needs at least 11 x 11 pixels, got 10 x 30'


def test_without_a_target_the_reason_stands_once(photo):
    values, note = score_image(photo, None, {**BOTH, 'niqe': {'type': 'derain_niqe'}})
    assert math.isnan(values['psnr'])
    assert math.isfinite(values['niqe'])
    assert note == 'no target'
