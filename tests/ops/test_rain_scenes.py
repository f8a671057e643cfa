"""What varies from scene to scene, beside values worked out by hand."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from ddsa_arch.errors import InputError
from ddsa_arch.ops.quality import psnr_y
from ddsa_arch.ops.rain import HEAVY, LIGHT, add_rain
from ddsa_arch.ops.rain_scenes import SceneRanges, _receding, draw_structures, render_scene, smooth_depth


def scenes(photo, ranges, count=40, style=LIGHT, layer=None):
    return [render_scene(photo, style, ranges, np.random.default_rng(seed), layer) for seed in range(count)]


@pytest.fixture(scope='module')
def patch(photo):
    return np.ascontiguousarray(photo[:96, :128])


def test_the_same_chance_gives_the_same_scene(patch):
    ranges = SceneRanges((0.5, 3), (0.5, 4), (0, 0.5), (0.7, 1.2), (0.8, 1.2), (50, 95), 0.5, 0.2, 0.3)
    for one, other in zip(scenes(patch, ranges, 8), scenes(patch, ranges, 8), strict=True):
        assert np.array_equal(one.rainy, other.rainy)
        assert np.array_equal(one.clean, other.clean)


def test_without_ranges_rain_is_all_that_differs(patch):
    for scene in scenes(patch, SceneRanges(), 5):
        assert np.array_equal(scene.clean, patch)
        assert scene.rains
        assert (scene.rainy >= scene.clean).all()


def test_the_share_without_rain_has_its_input_as_target(patch):
    made = scenes(patch, SceneRanges(rainless_share=0.25, veil=(0.1, 0.2), jpeg_quality=(30, 60)), 200)
    dry = [scene for scene in made if not scene.rains]
    assert 0.15 < len(dry) / 200 < 0.35
    assert all(np.array_equal(scene.rainy, scene.clean) for scene in dry)
    assert all(not np.array_equal(scene.rainy, scene.clean) for scene in made if scene.rains)


def test_larger_streaks_are_longer_and_cover_about_as_much():
    black = np.zeros((400, 400, 3), np.uint8)
    covered, runs = {}, {}
    for scale in (1.0, 4.0):
        layers = [scene.rainy[..., 0] for scene in scenes(black, SceneRanges(streak_scale=(scale, scale)), 30)]
        covered[scale] = np.mean([(layer > 8).mean() for layer in layers])
        columns = np.concatenate([layer.T.ravel() > 8 for layer in layers])
        edges = np.flatnonzero(np.diff(columns.astype(int)) == 1).size
        runs[scale] = columns.sum() / edges
    assert 0.5 < covered[4.0] / covered[1.0] < 2
    assert runs[4.0] > 2 * runs[1.0]


def test_haze_is_the_veil_times_the_depth():
    """On a black photo with no streaks, haze alone is seen: at most veil x airlight, and 0 at the nearest point."""
    black = np.zeros((64, 80, 3), np.uint8)
    dry = LIGHT.__class__(**{**LIGHT.__dict__, 'density': 0.0})
    for scene in scenes(black, SceneRanges(veil=(0.5, 0.5)), 10, dry):
        assert scene.rainy.min() == 0
        assert 0.5 * 0.6 * 255 - 1 <= scene.rainy.max() <= 0.5 * 0.95 * 255 + 1


def test_depth_is_smooth_and_farther_at_the_top():
    depths = [smooth_depth(90, 120, np.random.default_rng(seed)) for seed in range(20)]
    for depth in depths:
        assert (depth.min(), depth.max()) == pytest.approx((0, 1), abs=1e-6)
        assert np.abs(np.diff(depth, axis=0)).max() < 0.06
        assert np.abs(np.diff(depth, axis=1)).max() < 0.06
    assert np.mean([depth[:20].mean() - depth[-20:].mean() for depth in depths]) > 0.3


def test_gain_and_gamma_come_before_the_rain(patch):
    (scene,) = scenes(patch, SceneRanges(gain=(0.5, 0.5), gamma=(2, 2)), 1)
    wanted = np.rint(255 * 0.5 * (patch / 255.0) ** 2)
    assert np.abs(scene.clean - wanted).max() <= 1
    assert (scene.rainy >= scene.clean).all()


def test_jpeg_spoils_the_input_alone(patch):
    ranges = SceneRanges(jpeg_quality=(20, 20))
    (scene,), (plain,) = scenes(patch, ranges, 1), scenes(patch, SceneRanges(), 1)
    assert np.array_equal(scene.clean, patch)
    _, data = cv2.imencode('.jpg', plain.rainy, [cv2.IMWRITE_JPEG_QUALITY, 20])
    assert psnr_y(scene.rainy, cv2.imdecode(data, cv2.IMREAD_COLOR)) > 60


def test_layers_and_drawn_streaks_are_mixed(patch):
    asked = []

    def layer(rng):
        asked.append(1)
        return np.full((50, 60), 77, np.uint8)

    scenes(patch, SceneRanges(drawn_share=0.75), 200, layer=layer)
    assert 0.15 < len(asked) / 200 < 0.35
    (scene,) = scenes(patch, SceneRanges(streak_scale=(2, 2)), 1, layer=layer)
    s = 77 / 255
    assert np.abs(scene.rainy - np.rint(patch + s * (255 - patch.astype(float)))).max() <= 1


def test_structures_are_bright_lines_in_input_and_target(patch):
    dark = np.full_like(patch, 20)
    shares = []
    for seed in range(60):
        drawn = draw_structures(dark, np.random.default_rng(seed))
        shares.append((drawn > dark + 20).any(-1).mean())
        assert np.ptp(drawn.mean(-1)) > 20
        assert (drawn.max(-1) >= 20).all()
    assert min(shares) > 0.002
    assert np.quantile(shares, 0.9) < 0.98  # the finest ones out of focus leave nothing dark between them
    made = scenes(dark, SceneRanges(structures_share=1.0, rainless_share=1.0), 20)
    assert all(np.array_equal(scene.rainy, scene.clean) and (scene.clean != dark).any() for scene in made)
    assert (dark == 20).all()


def test_what_recedes_is_narrower_where_it_is_farther():
    """Posts at equal distances have gaps that shrink from the near side of the picture to the far one."""
    posts = np.zeros((90, 300), np.float32)
    posts[:, 30::60] = 1
    found = []
    for seed in range(20):
        row = _receding(posts, 100, 3.0, np.random.default_rng(seed))[45]
        peaks = 1 + np.flatnonzero((row[1:-1] > row[:-2]) & (row[1:-1] >= row[2:]) & (row[1:-1] > 0.05))
        gaps = np.diff(peaks)
        assert len(gaps) == 4
        found.append(gaps[-1] - gaps[0])
        steps = np.diff(gaps if gaps[0] <= gaps[-1] else gaps[::-1])
        assert steps.min() >= -1  # of a pixel, as peaks are on whole ones
    assert min(found) < -4 < 4 < max(found)  # either side is the near one


def test_the_edges_of_structures_are_as_soft_as_those_of_a_photo():
    """An edge drawn without smoothing goes from the darkest to the brightest from one pixel to the next."""
    dark = np.full((200, 200, 3), 20, np.uint8)
    for seed in range(20):
        grey = draw_structures(dark, np.random.default_rng(seed)).mean(-1)
        steps = np.abs(np.diff(grey, axis=1))
        assert np.quantile(steps, 0.999) < 0.8 * (grey.max() - 20)


@pytest.mark.parametrize('density', [0.25, 4])
def test_the_density_multiplies_the_number_of_streaks(density):
    """Few streaks overlap little, so light adds up."""
    black = np.zeros((200, 200, 3), np.uint8)
    sparse = replace(LIGHT, density=LIGHT.density / 8, density_spread=0, veil=0)
    light = [
        np.mean([s.rainy.mean() for s in scenes(black, SceneRanges(streak_density=(d, d)), 60, sparse)])
        for d in (1, density)
    ]
    assert light[1] / light[0] == pytest.approx(density, rel=0.2)


def test_a_scene_of_one_style_is_what_add_rain_draws(patch):
    """Both lay S over B by the screen blend; the chance is drawn in another order."""
    ours = np.mean([psnr_y(s.rainy, s.clean) for s in scenes(patch, SceneRanges(), 30, HEAVY)])
    theirs = np.mean([psnr_y(add_rain(patch, HEAVY, np.random.default_rng(i)), patch) for i in range(30)])
    assert ours == pytest.approx(theirs, abs=1.0)


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'streak_scale': [4, 1]}, 'streak_scale: [4, 1], wanted [LOW, HIGH] within 0.1 and 20'),
        ({'veil': [0, 1.5]}, 'veil: [0, 1.5], wanted [LOW, HIGH] within 0 and 1'),
        ({'jpeg_quality': 90}, 'jpeg_quality: 90, wanted [LOW, HIGH] within 1 and 100'),
        ({'rainless_share': 2}, 'rainless_share: 2, wanted a share from 0 to 1'),
    ],
)
def test_a_wrong_range_is_named(wrong, message):
    with pytest.raises(InputError) as error:
        SceneRanges(**wrong)
    assert message in str(error.value)
