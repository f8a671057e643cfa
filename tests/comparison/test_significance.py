import math

import numpy as np
import pytest
from scipy.stats import t, ttest_ind

from ddsa_arch.comparison.significance import NOISE, TOO_FEW, UNCLEAR, paired_difference

NAMES = ('A', 'B')


def sign_test(wins, losses):
    """Both tails of the binomial distribution, term by term."""
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1)) / 2**n
    return min(1.0, 2 * tail)


def test_the_interval_is_that_of_resampled_means(rng):
    """A plain loop over resamples; both are estimates, of a standard error of 0.1."""
    first, second = rng.normal(1, 0.6, 100), rng.normal(0.4, 0.8, 100)
    means = []
    for _ in range(4000):
        means.append(np.mean([(first - second)[rng.integers(100)] for _ in range(100)]))
    found = paired_difference(first, second)
    assert found.mean == pytest.approx(np.mean(first - second))
    assert found.low == pytest.approx(np.quantile(means, 0.025), abs=0.02)
    assert found.high == pytest.approx(np.quantile(means, 0.975), abs=0.02)


@pytest.mark.parametrize(('wins', 'losses'), [(9, 1), (5, 5), (7, 0), (12, 4)])
def test_the_sign_test_is_the_binomial_tail(wins, losses):
    first = [1.0] * wins + [-1.0] * losses + [0.0] * 3  # equal images are left out of the test
    found = paired_difference(first, [0.0] * len(first))
    assert (found.wins, found.losses, found.images) == (wins, losses, wins + losses + 3)
    assert found.p_value == pytest.approx(sign_test(wins, losses), abs=1e-12)


def test_a_small_difference_everywhere_is_no_noise(rng):
    base = rng.normal(30, 4, 50)  # the images differ by far more than the methods do
    found = paired_difference(base + 0.05 + rng.normal(0, 0.01, 50), base, names=NAMES)
    assert found.verdict == 'A is better'
    assert 0.04 < found.low < found.high < 0.06


def test_differences_of_both_signs_are_within_noise(rng):
    base = rng.normal(30, 4, 50)
    assert paired_difference(base + rng.normal(0, 0.5, 50), base, names=NAMES).verdict == NOISE


def test_for_niqe_the_lower_one_is_better(rng):
    base = rng.normal(4, 1, 30)
    found = paired_difference(base - 0.5, base, higher_is_better=False, names=NAMES)
    assert (found.verdict, found.wins, found.losses) == ('A is better', 30, 0)
    assert paired_difference(base, base - 0.5, higher_is_better=False, names=NAMES).verdict == 'B is better'


def test_one_image_that_carries_the_mean_is_unclear():
    """9 of 10 images are worse; the tenth is so much better that the mean is better and its interval wide."""
    first = np.full(20, -0.1)
    first[:2] = 0.1
    assert paired_difference(first, np.zeros(20), names=NAMES).verdict == 'B is better'
    first[:5] = 40
    assert paired_difference(first, np.zeros(20), names=NAMES).verdict == UNCLEAR


def test_scenes_count_once(rng):
    """10 photos with 14 rains each: as 140 images the difference looks certain."""
    of_scene = np.array([0.5, -0.4, 0.6, -0.3, 0.4, -0.2, 0.5, 0.3, -0.3, 0.2])
    scenes = np.repeat([f's{i}' for i in range(10)], 14)
    differences = np.repeat(of_scene, 14)
    found = paired_difference(differences, np.zeros(140), scenes=scenes, names=NAMES)
    assert (found.images, found.scenes) == (140, 10)
    assert found.mean == pytest.approx(of_scene.mean())
    assert found.verdict == NOISE
    assert paired_difference(differences, np.zeros(140), names=NAMES).verdict == 'A is better'


def test_scores_that_say_nothing_are_left_out():
    first = [30.0, math.inf, math.nan, 31.0, math.inf] + [32.0] * 6
    second = [29.0, 30.0, 30.0, 30.0, math.inf] + [31.0] * 6
    found = paired_difference(first, second, names=NAMES)
    assert (found.images, found.mean, found.wins) == (8, 1.0, 8)
    assert (found.low, found.high) == (1.0, 1.0)


@pytest.mark.parametrize('count', [0, 1, 5])
def test_too_few_images_get_no_verdict(count):
    found = paired_difference([2.0] * count, [1.0] * count)
    assert found.verdict == TOO_FEW
    assert math.isnan(found.low)


def test_equal_scores_are_within_noise():
    found = paired_difference([30.0] * 10, [30.0] * 10)
    assert (found.verdict, found.mean, found.p_value) == (NOISE, 0.0, 1.0)


def test_the_result_is_the_same_each_time(rng):
    first, second = rng.normal(0, 1, 40), rng.normal(0, 1, 40)
    assert paired_difference(first, second) == paired_difference(first, second)


def test_with_several_runs_the_interval_knows_that_seeds_differ():
    """Methods that are equal but for the luck of their seeds: the interval holds 0 about as often as it says."""
    rng = np.random.default_rng(3)
    hits, hits_of_images_alone, count = 0, 0, 120
    for _ in range(count):
        photos = rng.normal(30, 4, 30)
        runs = [[photos + rng.normal(0, 0.2) + rng.normal(0, 0.1, 30) for _ in range(3)] for _ in range(2)]
        first, second = (np.mean(of, axis=0) for of in runs)
        found = paired_difference(first, second, runs=tuple([run.mean() for run in of] for of in runs))
        hits += found.low <= 0 <= found.high
        alone = paired_difference(first, second)
        hits_of_images_alone += alone.low <= 0 <= alone.high
    assert hits_of_images_alone < 0.4 * count
    assert 0.9 * count < hits


def test_the_interval_over_runs_is_that_of_welch():
    """Where images do not differ, only the runs are left, and scipy has that interval."""
    first, second = [31.2, 31.5, 31.1], [30.9, 30.8, 30.2, 30.5]
    means = [np.full(10, np.mean(of)) for of in (first, second)]
    found = paired_difference(*means, runs=(first, second), names=NAMES)
    expected = ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.verdict == 'A is better'


def test_a_method_of_one_run_is_taken_to_vary_as_the_other():
    first, second = [31.0, 31.4, 30.9], [30.9]
    means = [np.full(10, np.mean(of)) for of in (first, second)]
    found = paired_difference(*means, runs=(first, second), names=NAMES)
    variance = np.var(first, ddof=1)
    degrees = (1 / 3 + 1) ** 2 / ((1 / 3) ** 2 / 2 + 1 / 2)  # of Satterthwaite: 3.2
    assert found.high - found.mean == pytest.approx(t.ppf(0.975, degrees) * np.sqrt(variance / 3 + variance))
    assert found.verdict == NOISE  # though all 10 images are better
    assert paired_difference(*means, names=NAMES).verdict == 'A is better'
