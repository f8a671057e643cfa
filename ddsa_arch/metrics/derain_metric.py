"""PSNR and SSIM on Y, NIQE and BRISQUE, as metrics that an option file can name.

``better`` tells BasicSR's model which of two scores is the better one; the value does not depend on it. A metric whose
``img2`` may be left out needs no target.
"""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import basicsr.metrics.niqe
import numpy as np
from basicsr.utils.registry import METRIC_REGISTRY

from ddsa_arch.errors import InputError
from ddsa_arch.metrics import brisque
from ddsa_arch.ops import quality
from ddsa_arch.ops.color import luma
from ddsa_arch.registration import register

NIQE_BLOCK = 96  # pixels; features are those of blocks of this side
NIQE_LEAST_BLOCKS = 2  # their covariance is part of the score


@register(METRIC_REGISTRY)
def derain_psnr(
    img: np.ndarray, img2: np.ndarray, *, crop_border: int = 0, protocol: str = 'paper', better: str = 'higher'
) -> float:
    """PSNR on Y in dB between uint8 BGR ``(H, W, 3)`` images; see ``ops.quality.psnr_y``."""
    return quality.psnr_y(img, img2, crop_border, protocol)


@register(METRIC_REGISTRY)
def derain_ssim(
    img: np.ndarray, img2: np.ndarray, *, crop_border: int = 0, protocol: str = 'paper', better: str = 'higher'
) -> float:
    """SSIM on Y between uint8 BGR ``(H, W, 3)`` images; see ``ops.quality.ssim_y``."""
    return quality.ssim_y(img, img2, crop_border, protocol)


@register(METRIC_REGISTRY)
def derain_niqe(img: np.ndarray, img2: np.ndarray | None = None, *, better: str = 'lower') -> float:
    """NIQE of a uint8 BGR ``(H, W, 3)`` image; lower is better. No resizing, ``img2`` is not looked at.

    Mittal, Soundararajan and Bovik, "Making a completely blind image quality analyzer", IEEE SPL 20(3), 2013, with the
    authors' model of pristine images. BasicSR's implementation in float64 on Y rounded as MATLAB rounds it, on the
    whole blocks of 96 x 96 pixels.

    Raises:
        InputError: fewer than two blocks, or no texture.
    """
    blocks = (img.shape[0] // NIQE_BLOCK) * (img.shape[1] // NIQE_BLOCK)
    if blocks < NIQE_LEAST_BLOCKS:
        raise InputError(
            f'NIQE needs at least {NIQE_LEAST_BLOCKS} blocks of {NIQE_BLOCK} x {NIQE_BLOCK} pixels, '
            f'the image is {img.shape[0]} x {img.shape[1]}'
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', RuntimeWarning)  # flat blocks divide by 0; it leaves them out
            value = basicsr.metrics.niqe.niqe(luma(img, rounded=True), *_pristine_model())
    except (ValueError, IndexError, np.linalg.LinAlgError):  # no block is left
        value = float('nan')
    if not np.isfinite(value):
        raise InputError('NIQE says nothing about an image without texture')
    return value


@cache
def _pristine_model() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and covariance of the features of pristine images, and the window, as BasicSR ships them."""
    with np.load(Path(basicsr.metrics.niqe.__file__).with_name('niqe_pris_params.npz')) as model:
        return model['mu_pris_param'], model['cov_pris_param'], model['gaussian_window']


@register(METRIC_REGISTRY)
def derain_brisque(img: np.ndarray, img2: np.ndarray | None = None, *, better: str = 'lower') -> float:
    """BRISQUE of a uint8 BGR ``(H, W, 3)`` image; lower is better; see ``metrics.brisque``. No resizing."""
    return brisque.brisque(img)
