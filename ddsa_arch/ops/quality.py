"""PSNR and SSIM on Y, in the two protocols of the field.

``paper``: Y rounded to whole numbers, as the MATLAB script behind every table of this field gets it from
rgb2ycbcr. ``basicsr``: Y not rounded, as BasicSR computes it (+0.03 dB at 34 dB, +0.28 dB at 44 dB).
Both measure the whole image unless ``crop_border`` says otherwise.
"""

from __future__ import annotations

import cv2
import numpy as np

from ddsa_arch.errors import InputError
from ddsa_arch.ops.color import luma

PROTOCOLS = ('paper', 'basicsr')
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_C1 = (0.01 * 255) ** 2
SSIM_C2 = (0.03 * 255) ** 2


def psnr_y(image: np.ndarray, target: np.ndarray, crop_border: int = 0, protocol: str = 'paper') -> float:
    """Peak signal-to-noise ratio on Y in dB, peak 255; ``inf`` for equal images.

    Args:
        image: ``(H, W, 3)`` uint8 BGR.
        target: the same shape.
        crop_border: pixels left out at each edge.
        protocol: ``paper`` or ``basicsr``, see the module.

    Raises:
        InputError: unequal shapes, another dtype, or nothing left after the crop.
    """
    y1, y2 = _pair(image, target, crop_border, protocol)
    error = np.mean((y1 - y2) ** 2)
    return float('inf') if error == 0 else float(10 * np.log10(255.0**2 / error))


def ssim_y(image: np.ndarray, target: np.ndarray, crop_border: int = 0, protocol: str = 'paper') -> float:
    """Structural similarity on Y: 11 x 11 Gaussian window of sigma 1.5, valid region, K = 0.01 and 0.03.

    Wang et al., IEEE TIP 13(4), 2004, without down-sampling. Arguments and errors as ``psnr_y``; a side below 11
    pixels has no valid region and raises InputError too.
    """
    y1, y2 = _pair(image, target, crop_border, protocol)
    if min(y1.shape) < SSIM_WINDOW:
        raise InputError(f'SSIM needs at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels, got {y1.shape[0]} x {y1.shape[1]}')
    mean1, mean2 = _window_mean(y1), _window_mean(y2)
    variance1 = _window_mean(y1 * y1) - mean1**2
    variance2 = _window_mean(y2 * y2) - mean2**2
    covariance = _window_mean(y1 * y2) - mean1 * mean2
    similarity = ((2 * mean1 * mean2 + SSIM_C1) * (2 * covariance + SSIM_C2)) / (
        (mean1**2 + mean2**2 + SSIM_C1) * (variance1 + variance2 + SSIM_C2)
    )
    return float(similarity.mean())


def _window_mean(y: np.ndarray) -> np.ndarray:
    """Compute the Gaussian mean of every window that lies inside the image."""
    kernel = cv2.getGaussianKernel(SSIM_WINDOW, SSIM_SIGMA)
    edge = SSIM_WINDOW // 2
    return cv2.sepFilter2D(y, cv2.CV_64F, kernel, kernel)[edge:-edge, edge:-edge]


def _pair(image: np.ndarray, target: np.ndarray, crop_border: int, protocol: str) -> tuple[np.ndarray, np.ndarray]:
    if protocol not in PROTOCOLS:
        raise InputError(f'metric protocol {protocol!r} is not known; choose one of {", ".join(PROTOCOLS)}')
    if image.shape != target.shape:
        raise InputError(f'the image is {image.shape}, its target {target.shape}: metrics need equal shapes')
    if image.dtype != np.uint8 or target.dtype != np.uint8:
        raise InputError(f'metrics take uint8 images, got {image.dtype} and {target.dtype}')
    if crop_border:
        inside = slice(crop_border, -crop_border)
        image, target = image[inside, inside], target[inside, inside]
    if not image.size:
        raise InputError(f'crop_border {crop_border} leaves nothing of the image')
    rounded = protocol == 'paper'
    return luma(image, rounded), luma(target, rounded)
