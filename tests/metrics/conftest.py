"""Images whose scores GNU Octave has computed, made anew from photos and seeds, with whole numbers alone."""

import csv
from pathlib import Path

import numpy as np
import pytest

from ddsa_arch.sets.sample_photos import sample_photos

PHOTOS = ('astronaut', 'chelsea', 'coffee', 'motorcycle_left', 'motorcycle_right')  # PNG: decoded alike everywhere
CROPS = ((0, 0, 240, 320), (31, 60, 251, 301))  # top, left, height, width
STORED = Path(__file__).with_name('octave_scores.csv')


def rain(image, rng):
    """Bright slanting lines."""
    streaks = np.zeros(image.shape[:2], int)
    for _ in range(300):
        top, left = rng.integers(0, image.shape[0]), rng.integers(0, image.shape[1])
        rows = np.arange(top, min(top + rng.integers(8, 30), image.shape[0]))
        columns = np.minimum(left + (rows - top) // 4, image.shape[1] - 1)
        streaks[rows, columns] += rng.integers(20, 120)
    return image + streaks[..., None]


def noise(image, rng):
    return image + rng.integers(-9, 10, image.shape)


def softness(image, rng):
    """The mean of each pixel and three of its neighbours."""
    return (image + np.roll(image, 1, 0) + np.roll(image, 1, 1) + np.roll(image, (1, 1), (0, 1)) + 2) // 4


@pytest.fixture(scope='session')
def octave_pairs():
    """30 pairs of a degraded and a clean crop of a photo, uint8 BGR, by name."""
    pairs = {}
    for photo_name, photo in sample_photos(PHOTOS).items():
        for place, (top, left, height, width) in enumerate(CROPS):
            target = photo[top : top + height, left : left + width]
            for seed, degrade in enumerate((rain, noise, softness)):
                image = degrade(target.astype(int), np.random.default_rng(10 * place + seed))
                name = f'{photo_name}{place}_{degrade.__name__}'
                pairs[name] = np.clip(image, 0, 255).astype(np.uint8), target
    return pairs


@pytest.fixture(scope='session')
def octave_scores():
    """What Octave gave for them: ``{name: {psnr, ssim, niqe, brisque}}``; score_pairs.m wrote it."""
    with STORED.open(encoding='utf-8') as file:
        return {row.pop('name'): {k: float(v) for k, v in row.items()} for row in csv.DictReader(file)}
