"""BRISQUE: how unnatural an image looks, without a target; lower is better.

Mittal, Moorthy and Bovik, "No-reference image quality assessment in the spatial domain", IEEE TIP 21(12), 2012.

The features are those of the authors' MATLAB code, with which their regression was trained: Gaussian window of sigma
7/6 with zeros outside, a generalised Gaussian for the normalised image and asymmetric ones for the products of
neighbours, and MATLAB's antialiased bicubic resizing for the second scale. The widespread Python and C++ ports differ
in all of these but the window, and by up to 10 points in the score. The regression itself, trained by the authors on
LIVE, is read from the package ``brisque``, of whose code nothing runs.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from basicsr.utils.matlab_functions import imresize
from scipy.special import gamma

from ddsa_arch.errors import InputError

WINDOW = 7
WINDOW_SIGMA = 7 / 6
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (-1, 1))  # rows down, columns to the right
SHAPES = np.arange(200, 10001) / 1000  # of the Gaussians that are tried
FEATURES = 36
SMALLEST_SIDE = 2 * WINDOW  # a window at half the size
GREY_BGR = np.array([0.114020904, 0.587043074, 0.298936021])  # MATLAB's rgb2gray


@dataclass(frozen=True)
class Regression:
    """A support vector regression with a Gaussian kernel, and the range of the features it was trained on."""

    low: np.ndarray  # (36,)
    high: np.ndarray  # (36,)
    vectors: np.ndarray  # (N, 36), in [-1, 1]
    coefficients: np.ndarray  # (N,)
    kernel_gamma: float
    offset: float

    def score(self, features: np.ndarray) -> float:
        """Return the score of features ``(36,)``."""
        scaled = 2 * (features - self.low) / (self.high - self.low) - 1
        kernel = np.exp(-self.kernel_gamma * ((self.vectors - scaled) ** 2).sum(1))
        return float(kernel @ self.coefficients - self.offset)


def brisque(image: np.ndarray) -> float:
    """The BRISQUE score, about 0 (natural; also below) to 100.

    Args:
        image: ``(H, W, 3)`` uint8 BGR.

    Raises:
        InputError: an image of another kind, too small, or of one colour; or the package ``brisque`` is missing.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f'BRISQUE takes uint8 images (H, W, 3), got {image.dtype} {image.shape}')
    if min(image.shape[:2]) < SMALLEST_SIDE:
        raise InputError(
            f'BRISQUE needs at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, got {image.shape[0]} x {image.shape[1]}'
        )
    model = regression()
    if np.ptp(image) > 0:
        with np.errstate(divide='ignore', invalid='ignore'):  # where one side of 0 is empty
            score = model.score(brisque_features(image))
        if np.isfinite(score):
            return score
    raise InputError('BRISQUE says nothing about an image without texture')


def brisque_features(image: np.ndarray) -> np.ndarray:
    """The 36 features of an image ``(H, W, 3)`` uint8 BGR: 18 of the image, 18 at half its size."""
    grey = np.floor(image @ GREY_BGR + 0.5)
    features = scale_features(grey)
    half = imresize(grey[..., None], 0.5)[..., 0]
    return np.array(features + scale_features(np.asarray(half, np.float64)))


def scale_features(grey: np.ndarray) -> list[float]:
    """Shape and spread of the normalised image ``(H, W)`` in [0, 255], and of its products with four neighbours."""
    normal = normalised(grey)
    features = list(generalised_gaussian(normal))
    for shift in NEIGHBOURS:
        shape, left, right = asymmetric_gaussian(normal * np.roll(normal, shift, (0, 1)))
        scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
        mean = (right - left) * scale * gamma(2 / shape) / gamma(1 / shape)
        features += [shape, mean, left**2, right**2]
    return features


def normalised(grey: np.ndarray) -> np.ndarray:
    """Subtract the mean of each pixel's surroundings and divide by their standard deviation plus 1; eq. (1)."""
    kernel = cv2.getGaussianKernel(WINDOW, WINDOW_SIGMA)

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(x, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_CONSTANT)

    centre = mean(grey)
    return (grey - centre) / (np.sqrt(np.abs(mean(grey * grey) - centre**2)) + 1)


def generalised_gaussian(x: np.ndarray) -> tuple[float, float]:
    """Fit a generalised Gaussian by matching moments, eq. (4); return its shape and variance."""
    variance = np.mean(x**2)
    return SHAPES[np.abs(variance / np.mean(np.abs(x)) ** 2 - 1 / _moment_ratios()).argmin()], variance


def asymmetric_gaussian(x: np.ndarray) -> tuple[float, float, float]:
    """Fit shape and deviations left and right of 0 by matching moments; Lasmar et al., ICIP 2009."""
    left, right = np.sqrt(np.mean(x[x < 0] ** 2)), np.sqrt(np.mean(x[x > 0] ** 2))
    ratio = left / right
    spread = np.mean(np.abs(x)) ** 2 / np.mean(x**2)
    wanted = spread * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    return SHAPES[((_moment_ratios() - wanted) ** 2).argmin()], left, right


@cache
def _moment_ratios() -> np.ndarray:
    """mean(|x|)^2 / mean(x^2) of a generalised Gaussian, for each of ``SHAPES``."""
    return gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))


@cache
def regression() -> Regression:
    """Read the authors' regression from the files of the installed package ``brisque``.

    Raises:
        InputError: the package is missing.
    """
    found = find_spec('brisque')
    places = (found.submodule_search_locations if found else None) or ()
    folder = next((Path(place) / 'models' for place in places), None)
    if folder is None or not folder.is_dir():
        raise InputError('BRISQUE takes its model from a package: pip install --no-deps brisque')
    with (folder / 'normalize.pickle').open('rb') as file:
        ranges = pickle.load(file)
    header, body = (folder / 'svm.txt').read_text(encoding='ascii').split('SV\n')
    values = dict(line.split(maxsplit=1) for line in header.strip().splitlines())
    lines = [line.split() for line in body.strip().splitlines()]
    vectors = np.zeros((len(lines), FEATURES))
    for vector, (_, *entries) in zip(vectors, lines, strict=True):
        for entry in entries:  # zeros are left out
            place, value = entry.split(':')
            vector[int(place) - 1] = float(value)
    return Regression(
        np.array(ranges['min_'], np.float64),
        np.array(ranges['max_'], np.float64),
        vectors,
        np.array([float(line[0]) for line in lines]),
        float(values['gamma']),
        float(values['rho']),
    )
