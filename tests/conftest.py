"""Shared by all tests: few threads, and photos that need no download."""

from pathlib import Path

import numpy as np
import pytest
import torch

import ddsa_arch  # noqa: F401  (fills the registries)
from ddsa_arch.ops.sample_photos import sample_photos

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_configure(config):
    torch.set_num_threads(1)  # the networks of the tests are too small for more


@pytest.fixture(scope='session')
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope='session')
def photo() -> np.ndarray:
    """A real photo, (300, 451, 3) uint8 BGR."""
    return sample_photos(['chelsea'])['chelsea']


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
