import cv2
import numpy as np
import pytest

from ddsa_arch.errors import InputError
from ddsa_arch.files.images import images_by_stem, read_image
from ddsa_arch.ops.rain import PRESETS, add_rain
from ddsa_arch.sets.pair_faults import MARGIN, brightness_changes, gray, pair_fault, swapped_sides
from ddsa_arch.sets.sample_photos import sample_photos


def fault(rainy, clean):
    found = pair_fault(rainy, clean, gray(rainy), gray(clean))
    return found and found[0]


@pytest.fixture(scope='module')
def photos():
    return sample_photos()


@pytest.mark.parametrize('style', PRESETS)
@pytest.mark.parametrize('quality', [None, 50])
def test_rain_is_no_fault_and_swapped_sides_are(style, quality, photos, rng):
    for clean in photos.values():
        rainy = add_rain(clean, PRESETS[style], rng)
        if quality:
            coded = cv2.imencode('.jpg', rainy, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            rainy = cv2.imdecode(coded, cv2.IMREAD_COLOR)
        assert fault(rainy, clean) is None
        assert fault(clean, rainy) == 'darker'


def test_re_encoding_alone_is_not_darker(photo):
    coded = cv2.imencode('.jpg', photo, [cv2.IMWRITE_JPEG_QUALITY, 20])[1]
    assert fault(cv2.imdecode(coded, cv2.IMREAD_COLOR), photo) is None


def test_identical_sides_are_named_and_one_pixel_makes_a_difference(photo):
    assert fault(photo.copy(), photo) == 'identical'
    changed = photo.copy()
    changed[-1, -1, -1] ^= 1
    assert fault(changed, photo) is None


def test_unequal_sizes_are_named_with_width_and_height(photo):
    cut = photo[:200, :300]
    assert pair_fault(photo, cut, gray(photo), gray(cut)) == (
        'unequal sizes',
        'input and target are 451 x 300 and 300 x 200',
    )


def test_changes_are_shares_of_the_means_of_16_pixels(rng):
    """Against loops over the blocks of 4 x 4."""
    rainy, clean = (rng.integers(0, 256, (24, 40), dtype=np.uint8) for _ in range(2))
    darker = brighter = 0
    for y in range(0, 24, 4):
        for x in range(0, 40, 4):
            means = [int(np.floor(side[y : y + 4, x : x + 4].mean() + 0.5)) for side in (rainy, clean)]
            darker += means[0] - means[1] < -MARGIN
            brighter += means[0] - means[1] > MARGIN
    assert darker > 5
    assert brighter > 5
    assert brightness_changes(rainy, clean) == pytest.approx((darker / 60, brighter / 60), abs=1 / 60)


@pytest.mark.parametrize(('share', 'expected'), [(0.01, None), (0.05, 'darker'), (1, 'darker')])
def test_a_few_dark_pixels_are_borne(share, expected, photo):
    """Some streaks in front of a bright sky may be darker than it."""
    clean = np.maximum(photo, 40)
    rainy = clean.copy()
    rainy[: round(300 * share)] -= 30
    assert fault(rainy, clean) == expected


def test_rain_may_darken_a_bright_sky_if_it_brightens_more(photo):
    clean = np.clip(photo, 40, 200)
    rainy = clean.copy()
    rainy[:60] -= 30
    rainy[200:] += 30
    assert fault(rainy, clean) is None
    rainy[230:] = clean[230:]
    rainy[60:150] -= 30
    assert fault(rainy, clean) == 'darker'


def test_tiny_images_are_compared_too():
    black, white = np.zeros((1, 2, 3), np.uint8), np.full((1, 2, 3), 255, np.uint8)
    assert fault(white, black) is None
    assert fault(black, white) == 'darker'


@pytest.mark.parametrize(
    ('darker', 'pairs', 'sentence'),
    [
        (0, 0, None),
        (5, 10, None),
        (6, 10, '6 of 10 pairs get darker: are input and target swapped?'),
        (1, 1, '1 of 1 pairs get darker: are input and target swapped?'),
    ],
)
def test_a_majority_looks_swapped(darker, pairs, sentence):
    assert swapped_sides(darker, pairs) == sentence


def test_more_than_all_is_refused():
    with pytest.raises(InputError, match='3 of 2 pairs'):
        swapped_sides(3, 2)


@pytest.mark.parametrize('name', ['rain200h_train', 'rain100l_test'])
def test_real_sets_are_sound_and_swapped_they_are_not(name, repository):
    folder = repository.parent / 'shared' / 'data' / name
    if not folder.is_dir():
        pytest.skip('the real sets are not there')
    sides = [images_by_stem(folder / side) for side in ('input', 'target')]
    stems = list(sides[0])[::2]
    faults, swapped = [], []
    for stem in stems:
        rainy, clean = (read_image(side[stem]) for side in sides)
        faults.append(fault(rainy, clean))
        swapped.append(fault(clean, rainy))
    assert faults == [None] * len(stems)
    assert swapped == ['darker'] * len(stems)
