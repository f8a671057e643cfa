"""Random numbers that depend on what is drawn for, never on who draws or when."""

from __future__ import annotations

import numpy as np


def sample_rng(seed: int, *key: int) -> np.random.Generator:
    """A generator of its own for every (seed, key), the same in every process and on every platform.

    Args:
        seed: of the experiment, ``manual_seed``.
        key: non-negative integers, such as the position of a sample in the run; as many at every use, since
            zeros at the end do not count.
    """
    return np.random.default_rng([seed, *key])
