import itertools
from collections import Counter

import numpy as np
import pytest

from ddsa_arch.ops.patches import augment, extend, random_crop, random_flips
from ddsa_arch.ops.seeds import sample_rng


def coordinates(height, width):
    """An image whose pixels hold their own place: (row, column, 0)."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.zeros_like(rows)], -1).astype(np.uint8)


@pytest.mark.parametrize('seed', range(20))
def test_patch_is_a_window_of_the_image(seed):
    image = coordinates(17, 23)
    [patch] = random_crop([image], 8, np.random.default_rng(seed))
    top, left = map(int, patch[0, 0, :2])
    assert patch.shape == (8, 8, 3)
    assert np.array_equal(patch, image[top : top + 8, left : left + 8])


def test_every_window_is_drawn_about_equally_often():
    image = coordinates(6, 5)
    rng = np.random.default_rng(0)
    places = Counter(tuple(random_crop([image], 4, rng)[0][0, 0, :2].tolist()) for _ in range(3000))
    assert set(places) == set(itertools.product(range(3), range(2)))
    assert min(places.values()) > 400  # 500 expected, standard deviation 20
    assert max(places.values()) < 600


def test_image_of_the_patch_size_is_the_patch():
    image = coordinates(8, 8)
    assert np.array_equal(random_crop([image], 8, np.random.default_rng(0))[0], image)


@pytest.mark.parametrize(('height', 'width'), [(8, 20), (20, 8), (5, 7), (1, 1), (1, 9), (3, 2), (2, 3)])
def test_small_image_is_extended_before_the_crop(height, width):
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    size = 16
    bottom, right = max(0, size - height), max(0, size - width)
    whole = np.pad(image, ((0, bottom), (0, right), (0, 0)), 'reflect')
    [patch] = random_crop([image], size, np.random.default_rng(2))
    windows = [
        whole[top : top + size, left : left + size]
        for top, left in itertools.product(range(whole.shape[0] - size + 1), range(whole.shape[1] - size + 1))
    ]
    assert patch.shape == (size, size, 3)
    assert any(np.array_equal(patch, window) for window in windows)


@pytest.mark.parametrize('shape', [(1, 1), (1, 5), (5, 1), (2, 3), (3, 3), (9, 4)])
@pytest.mark.parametrize('more', [(0, 0), (1, 0), (0, 2), (7, 7), (127, 63)])
def test_extension_is_numpys_reflection(shape, more):
    """NumPy, too, reflects as often as it takes, and repeats a single pixel."""
    image = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = np.pad(image, ((0, more[0]), (0, more[1]), (0, 0)), 'reflect')
    assert np.array_equal(extend(image, *more), expected)


def test_reflection_does_not_repeat_the_edge():
    row = np.array([[10, 20, 30]], np.uint8)[..., None].repeat(3, -1)
    assert extend(row, 0, 4)[0, :, 0].tolist() == [10, 20, 30, 20, 10, 20, 30]
    assert extend(row, 2, 0)[:, 1, 0].tolist() == [20, 20, 20]


def test_all_four_flips_occur_about_equally_often():
    image = coordinates(2, 2)
    rng = np.random.default_rng(0)
    corners = Counter(tuple(random_flips([image], rng)[0][0, 0, :2].tolist()) for _ in range(2000))
    assert set(corners) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert min(corners.values()) > 400  # 500 expected, standard deviation 19
    assert max(corners.values()) < 600


@pytest.mark.parametrize(
    ('allowed', 'expected'),
    [
        ({'horizontal': False}, {(0, 0), (1, 0)}),
        ({'vertical': False}, {(0, 0), (0, 1)}),
        ({'horizontal': False, 'vertical': False}, {(0, 0)}),
    ],
)
def test_a_flip_that_is_not_allowed_never_occurs(allowed, expected):
    rng = np.random.default_rng(0)
    corners = {tuple(random_flips([coordinates(2, 2)], rng, **allowed)[0][0, 0, :2].tolist()) for _ in range(100)}
    assert corners == expected


def test_flips_are_mirrors():
    image = coordinates(3, 5)
    mirrors = [image, np.flip(image, 0), np.flip(image, 1), np.flip(image, (0, 1))]
    for seed in range(20):
        [flipped] = random_flips([image], np.random.default_rng(seed))
        assert sum(np.array_equal(flipped, mirror) for mirror in mirrors) == 1


@pytest.mark.parametrize(('height', 'width'), [(20, 30), (5, 30), (4, 4)])
@pytest.mark.parametrize('seed', range(8))
def test_pair_stays_aligned(height, width, seed):
    rain = np.random.default_rng(9).integers(0, 200, (height, width, 3), dtype=np.uint8)
    clean = rain + 55
    rng = np.random.default_rng(seed)
    lq, gt = random_flips(random_crop([rain, clean], 12, rng), rng)
    assert np.array_equal(lq + 55, gt)


def test_same_generator_gives_the_same_patch():
    image = np.random.default_rng(9).integers(0, 256, (40, 50, 3), dtype=np.uint8)

    def draw(*key):
        rng = sample_rng(*key)
        return random_flips(random_crop([image], 8, rng), rng)[0]

    assert np.array_equal(draw(5, 17), draw(5, 17))
    assert not np.array_equal(draw(5, 17), draw(5, 18))
    assert not np.array_equal(draw(5, 17), draw(6, 17))


def test_input_images_are_not_changed():
    image = coordinates(6, 6)
    before = image.copy()
    random_flips(random_crop([image], 9, np.random.default_rng(1)), np.random.default_rng(1))
    assert np.array_equal(image, before)


def test_sample_generators_differ_by_seed_and_key():
    draws = {int(sample_rng(seed, place).integers(2**63)) for seed in range(20) for place in range(1, 51)}
    assert len(draws) == 1000


def test_sample_generator_is_numpys_with_seed_and_key_as_entropy():
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence([3, 1, 4]))).integers(1000, size=5)
    assert sample_rng(3, 1, 4).integers(1000, size=5).tolist() == expected.tolist()


@pytest.mark.parametrize('kind', ['dihedral', 'dihedral9', 'single_flip'])
def test_patches_are_turned_with_the_published_probabilities(kind):
    image = np.arange(9).reshape(3, 3)
    turned = [np.rot90(image, k) for k in range(4)]
    ways = {'none': image, 'rows': image[::-1], 'columns': image[:, ::-1]}
    ways |= {f'turn{k}': turned[k] for k in (1, 2, 3)} | {f'turn{k}flip': turned[k][::-1] for k in (1, 3)}
    by_content = {v.tobytes(): k for k, v in ((k, np.ascontiguousarray(v)) for k, v in ways.items())}
    assert len(by_content) == 8
    wanted = dict.fromkeys(ways, 1 / 8) if kind == 'dihedral' else dict.fromkeys(ways, 1 / 9) | {'none': 2 / 9}
    if kind == 'single_flip':
        wanted = {'none': 1 / 2, 'rows': 1 / 4, 'columns': 1 / 4}
    rng = np.random.default_rng(0)
    count = dict.fromkeys(ways, 0)
    for _ in range(4000):
        first, second = augment([image, image + 10], rng, kind)
        assert np.array_equal(first + 10, second)
        count[by_content[np.ascontiguousarray(first).tobytes()]] += 1
    for name, number in count.items():
        assert abs(number / 4000 - wanted.get(name, 0)) < 0.03, name


def test_cycle_spinning_rolls_by_multiples_of_fifty():
    image = np.arange(120 * 60).reshape(120, 60)
    rng, seen = np.random.default_rng(0), set()
    for _ in range(60):
        first, second = augment([image, image + 1], rng, 'cycle_spin')
        assert np.array_equal(first + 1, second)
        row, column = np.argwhere(first == 0)[0]
        assert np.array_equal(first, np.roll(image, (row, column), (0, 1)))
        seen.add((int(row), int(column)))
    assert seen == {(r, c) for r in (0, 50, 100) for c in (0, 50)}
