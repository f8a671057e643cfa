"""Random numbers that depend on a seed and a key alone, never on the process or the time."""

from __future__ import annotations

import numpy as np


def sample_rng(seed: int, *key: int) -> np.random.Generator:
    """Make a generator for a (seed, key), which gives the same numbers in every process and on every platform.

    Args:
        seed: of the experiment, ``manual_seed``.
        key: non-negative integers, such as the position of a sample in the run; as many at every use, since
            zeros at the end do not count.
    """
    return np.random.default_rng([seed, *key])
