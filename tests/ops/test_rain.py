import math
from dataclasses import replace

import numpy as np
import pytest
from helpers import noise
from skimage.color import rgb2ycbcr
from skimage.feature import structure_tensor
from skimage.filters import gaussian
from skimage.metrics import peak_signal_noise_ratio

from ddsa_arch.ops import rain
from ddsa_arch.ops.rain import HEAVY, LIGHT, PRESETS, RainStyle, add_rain, rain_style, streak_layer
from ddsa_arch.sets.sample_photos import sample_photos

# one depth, one direction, one kind of streak
PLAIN = RainStyle(
    density=3.0, density_spread=0.0, length=(30, 30), width=(2.0, 2.0), beading=0.0, opacity=(0.5, 0.5),
    angle_mean=0.0, angle_spread=0.0, angle_scatter=0.0, depth_layers=1, blur=0.0, veil=0.0,
)  # fmt: skip


def rng(seed=0):
    return np.random.default_rng(seed)


def y_psnr(a, b):
    return peak_signal_noise_ratio(*(rgb2ycbcr(i[..., ::-1])[..., 0] for i in (a, b)), data_range=255)


# The rain model


@pytest.mark.parametrize('veil', [0.0, 0.3])
def test_rain_model_meets_its_slow_twin(veil):
    style = replace(HEAVY, veil=veil, atmospheric_light=0.7)
    clean = noise(9, 13)
    streaks = streak_layer(9, 13, style, rng(5))
    rainy = add_rain(clean, style, rng(5))
    assert 0.05 < streaks.mean() < 0.95
    for row, column, channel in np.ndindex(clean.shape):
        b, s = clean[row, column, channel] / 255, float(streaks[row, column])
        screen = 1 - (1 - b) * (1 - s)
        expected = 255 * ((1 - veil) * screen + veil * 0.7)
        assert abs(int(rainy[row, column, channel]) - expected) <= 0.5 + 1e-4


def test_rain_model_by_hand():
    clean = np.full((2, 2, 3), 100, np.uint8)
    layer = np.full((2, 2), 51, np.uint8)  # S = 0.2
    assert (add_rain(clean, LIGHT, rng(), layer) == 131).all()  # 100 + 0.2 * 155
    veiled = replace(LIGHT, veil=0.25, atmospheric_light=0.8)
    assert (add_rain(clean, veiled, rng(), layer) == 149).all()  # 0.75 * 131 + 0.25 * 204 = 149.25


@pytest.mark.parametrize('name', PRESETS)
def test_rain_without_veil_never_darkens(name):
    clean = noise(64, 80)
    rainy = add_rain(clean, replace(PRESETS[name], veil=0.0), rng())
    assert (rainy >= clean).all()
    assert (rainy > clean).any()


def test_no_streaks_and_no_veil_keep_every_byte():
    clean = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    assert np.array_equal(add_rain(clean, replace(PLAIN, density=0.0), rng()), clean)


def test_veil_pulls_to_the_atmospheric_light():
    style = replace(PLAIN, density=0.0, veil=1.0, atmospheric_light=0.6)
    assert (add_rain(noise(4, 4), style, rng()) == 153).all()


@pytest.mark.parametrize(('name', 'low', 'high'), [('light', 25.5, 28.5), ('heavy', 13.0, 15.5)])
def test_presets_are_as_hard_as_the_benchmarks(name, low, high):
    photos = sample_photos(['astronaut', 'coffee', 'chelsea']).values()
    psnr = [y_psnr(photo, add_rain(photo, PRESETS[name], rng(seed))) for photo in photos for seed in range(4)]
    assert low < np.mean(psnr) < high


# Streaks


@pytest.mark.parametrize('shape', [(1, 1), (1, 40), (40, 1), (5, 700), (33, 17), (64, 64)])
@pytest.mark.parametrize('name', PRESETS)
def test_streak_layer_has_any_size(name, shape):
    layer = streak_layer(*shape, PRESETS[name], rng())
    assert layer.shape == shape
    assert layer.dtype == np.float32
    assert layer.min() >= 0
    assert layer.max() <= 1
    assert add_rain(noise(*shape), PRESETS[name], rng()).shape == (*shape, 3)


@pytest.mark.parametrize('name', PRESETS)
def test_rain_depends_on_the_seed_alone(name):
    layer = streak_layer(64, 48, PRESETS[name], rng(3))
    assert layer.tobytes() == streak_layer(64, 48, PRESETS[name], rng(3)).tobytes()
    assert layer.tobytes() != streak_layer(64, 48, PRESETS[name], rng(4)).tobytes()
    clean = noise(64, 48)
    assert add_rain(clean, PRESETS[name], rng(3)).tobytes() == add_rain(clean, PRESETS[name], rng(3)).tobytes()


def measured_angle(layer):
    """Degrees from vertical, positive to the right on the way down: across the dominant gradient."""
    smooth = gaussian(layer.astype(np.float64), 2)  # Sobel is biased on lines as thin as a pixel
    rr, rc, cc = (a.sum() for a in structure_tensor(smooth, sigma=1, order='rc'))
    gradient = 0.5 * math.atan2(2 * rc, cc - rr)  # of (columns, rows)
    return -math.degrees(gradient)


@pytest.mark.parametrize('angle', [-40, -12, 0, 7, 25, 55])
@pytest.mark.parametrize('style', [PLAIN, LIGHT, HEAVY])
def test_streaks_fall_at_the_angle_asked_for(style, angle):
    style = replace(style, angle_mean=angle, angle_spread=0.0, angle_scatter=0.0)
    assert abs(measured_angle(streak_layer(256, 256, style, rng())) - angle) < 2


def test_positive_angles_fall_to_the_right():
    style = replace(PLAIN, density=0.3, angle_mean=45.0)
    layer = streak_layer(128, 128, style, rng(1)).astype(np.float64)
    along, against = (layer[:-8, :-8] * layer[8:, 8:]).sum(), (layer[:-8, 8:] * layer[8:, :-8]).sum()
    assert along > 3 * against


def test_images_of_one_style_differ_in_direction():
    angles = [measured_angle(streak_layer(96, 96, LIGHT, rng(seed))) for seed in range(40)]
    assert 0.6 * LIGHT.angle_spread < np.std(angles) < 1.4 * LIGHT.angle_spread


def test_optical_depth_meets_campbells_theorem():
    """The mean of a sum of shapes at random places is their rate times the integral of one shape."""
    style = replace(PLAIN, angle_mean=20.0)
    tau = -np.log1p(-streak_layer(512, 512, style, rng()).astype(np.float64))
    along = style.length[0] * 2 / 3  # integral of 1 - u^2 over [-1, 1] is 4/3
    across = style.width[0] / (2 * math.sqrt(1 - math.sqrt(0.5))) * 16 / 15  # width is where (1 - v^2)^2 is 1/2
    expected = style.density / 1000 * math.log(2) * along * across
    assert tau.mean() == pytest.approx(expected, rel=0.08)


def test_denser_rain_covers_more():
    coverage = [(streak_layer(128, 128, replace(LIGHT, density=d), rng()) > 0.05).mean() for d in (1, 4, 16)]
    assert coverage[0] < coverage[1] < coverage[2]


def test_opacity_bounds_a_lonely_streak():
    layer = streak_layer(400, 400, replace(PLAIN, density=0.02, opacity=(0.3, 0.3)), rng())
    assert layer.max() == pytest.approx(0.3, abs=0.02)
    assert streak_layer(64, 64, replace(PLAIN, opacity=(1.0, 1.0)), rng()).max() <= 1


def test_drawing_meets_its_slow_twin(monkeypatch):
    monkeypatch.setattr(rain, 'SMALLEST_BATCH', 50)  # so that several batches are needed
    n, height, width, beading = 12, 24, 19, 0.4
    r = rng(7)
    streaks = rain._Streaks(
        y=r.uniform(-6, 30, n), x=r.uniform(-6, 25, n), half_height=r.uniform(0.3, 9, n),
        half_width=r.uniform(1, 3, n), slope=r.uniform(-1.5, 1.5, n), tau=r.uniform(0.1, 2, n),
        bead_waves=r.uniform(0, 9, n), bead_phase=r.uniform(0, 6, n),
    )  # fmt: skip
    expected = np.zeros((height, width))
    for i, row, column in np.ndindex(n, height, width):
        u = (row - streaks.y[i]) / streaks.half_height[i]
        v = (column - streaks.x[i] - (row - streaks.y[i]) * streaks.slope[i]) / streaks.half_width[i]
        if abs(u) < 1 and abs(v) < 1:
            beads = 1 + beading * math.cos(streaks.bead_waves[i] * u + streaks.bead_phase[i])
            expected[row, column] += streaks.tau[i] * (1 - u**2) * beads * (1 - v**2) ** 2
    assert (expected > 0).mean() > 0.1
    assert rain._draw_streaks(height, width, streaks, beading) == pytest.approx(expected, abs=1e-5)


# Streak layers from elsewhere


def test_a_larger_layer_is_cropped():
    layer = np.arange(63, dtype=np.uint8).reshape(7, 9)
    rainy = add_rain(np.zeros((3, 4, 3), np.uint8), LIGHT, rng(), layer)  # black: O = S
    windows = np.lib.stride_tricks.sliding_window_view(layer, (3, 4)).reshape(-1, 12)
    assert rainy[..., 0].ravel().tolist() in windows.tolist()
    assert np.array_equal(rainy[..., 0], rainy[..., 2])


def test_crops_of_a_larger_layer_differ():
    layer = rng().integers(0, 256, (50, 50), dtype=np.uint8)
    black = np.zeros((8, 8, 3), np.uint8)
    assert len({add_rain(black, LIGHT, rng(seed), layer).tobytes() for seed in range(8)}) > 4


def test_a_smaller_layer_is_reflected():
    layer = np.array([[10, 20, 30]], np.uint8)
    rainy = add_rain(np.zeros((2, 8, 3), np.uint8), LIGHT, rng(), layer)
    assert rainy[..., 1].tolist() == [[10, 20, 30, 30, 20, 10, 10, 20]] * 2


def test_a_layer_of_one_pixel_and_one_with_channels():
    black = np.zeros((3, 2, 3), np.uint8)
    assert (add_rain(black, LIGHT, rng(), np.full((1, 1), 1.0)) == 255).all()
    color = np.array([[[10, 20, 30]]], np.uint8)
    assert (add_rain(black, LIGHT, rng(), color) == color).all()


def test_uint8_and_floating_layers_agree():
    layer = rng().integers(0, 256, (6, 6), dtype=np.uint8)
    clean = noise(6, 6)
    assert np.array_equal(add_rain(clean, LIGHT, rng(), layer), add_rain(clean, LIGHT, rng(), layer / 255))


# What cannot be used


@pytest.mark.parametrize('clean', [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8),
                                   np.zeros((0, 4, 3), np.uint8)])  # fmt: skip
def test_wrong_images_are_refused(clean):
    with pytest.raises(ValueError, match=r'want uint8 \(H, W, 3\)'):
        add_rain(clean, LIGHT, rng())


@pytest.mark.parametrize(
    ('layer', 'message'),
    [
        (np.zeros(4, np.uint8), r'shape \(4,\)'),
        (np.zeros((4, 0), np.uint8), r'shape \(4, 0\)'),
        (np.zeros((4, 4, 2), np.uint8), r'shape \(4, 4, 2\)'),
        (np.zeros((4, 4), np.int64), 'int64'),
        (np.full((4, 4), 200.0), r'200\.0.*\[0, 1\]'),
        (np.full((4, 4), np.nan), r'nan.*\[0, 1\]'),
    ],
)
def test_wrong_layers_are_refused(layer, message):
    with pytest.raises(ValueError, match=message):
        add_rain(noise(4, 4), LIGHT, rng(), layer)


def test_an_empty_layer_is_refused():
    with pytest.raises(ValueError, match='0 x 5'):
        streak_layer(0, 5, LIGHT, rng())


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'density': -1.0}, r'density is -1\.0'),
        ({'density': math.nan}, 'density is nan'),
        ({'length': (9, 5)}, r'length is \(9, 5\)'),
        ({'width': (0, 5)}, 'width begins at 0'),
        ({'opacity': (0.1, 1.5)}, r'opacity is \(0\.1, 1\.5\)'),
        ({'beading': 2.0}, r'beading is 2\.0'),
        ({'veil': -0.1}, r'veil is -0\.1'),
        ({'angle_mean': 80.0}, 'at most 60'),
        ({'depth_layers': 0}, 'depth_layers is 0'),
    ],
)
def test_wrong_styles_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(LIGHT, **change)


def test_presets_are_found_by_name():
    assert rain_style('light') is LIGHT
    with pytest.raises(ValueError, match="'heavvy'; did you mean 'heavy'"):
        rain_style('heavvy')
