import numpy as np
import pytest

from ddsa_arch.ops.steady import steadied


@pytest.fixture
def scene(photo):
    return photo[100:164, 100:196].astype(np.float32) / 255


def test_what_one_frame_has_alone_goes(scene):
    streak = scene.copy()
    streak[10:40, 30:32] += 0.05
    after = steadied(scene, streak.clip(0, 1), scene)
    assert np.abs(after - scene).max() < 0.015  # of 0.05


def test_noise_becomes_less(scene, rng):
    noisy = [(scene + rng.normal(0, 0.01, scene.shape)).clip(0, 1).astype(np.float32) for _ in range(3)]
    before, after = (np.mean((frame - scene) ** 2) for frame in (noisy[1], steadied(*noisy)))
    assert after < 0.65 * before  # the variance of the median of three is 0.449 of one


def test_what_moves_leaves_no_ghost(scene):
    frames = []
    for x in (20, 30, 40):
        frame = scene.copy()
        frame[20:40, x : x + 12] = [0.9, 0.1, 0.2]
        frames.append(frame)
    assert np.abs(steadied(*frames) - frames[1]).max() < 0.02


def test_what_is_there_for_one_frame_stays_if_it_is_large(scene):
    flash = (scene + 0.3).clip(0, 1)
    assert np.abs(steadied(scene, flash, scene) - flash).max() < 0.02


def test_a_cut_changes_nothing(scene):
    assert np.abs(steadied(scene, scene, scene[::-1]) - scene).max() == 0  # the median is the middle one
    assert np.abs(steadied(scene[::-1], scene, scene[:, ::-1]) - scene).mean() < 1e-3
