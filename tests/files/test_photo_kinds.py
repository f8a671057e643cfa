"""Photos of every kind through a network whose output is its input: what comes out is what an outside reader saw."""

import numpy as np
import photo_kinds as kinds
import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from ddsa_arch.archs.weights import write_weights
from ddsa_arch.files.photo_formats import written_suffix
from ddsa_arch.inference.derainer import Derainer
from ddsa_arch.runners.derain import derain_files

KINDS = {name: rest for name, *rest in kinds.all_kinds()}


@ARCH_REGISTRY.register()
class Unchanged(nn.Module):
    """Its output is its input."""

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, rain):
        return rain + self.nothing


@pytest.fixture(scope='module')
def unchanged(tmp_path_factory):
    path = tmp_path_factory.mktemp('unchanged') / 'unchanged.pth'
    write_weights(path, Unchanged().state_dict(), {'type': 'Unchanged'}, {})
    return Derainer(path, device='cpu')


def test_there_are_many_kinds():
    assert len(KINDS) >= 60


@pytest.mark.parametrize('name', KINDS)
def test_a_kind_is_kept_without_loss(tmp_path, unchanged, name):
    suffix, result, make = KINDS[name]
    wanted = make(tmp_path / f'a{suffix}')
    assert written_suffix(suffix) == result
    report = derain_files([tmp_path / f'a{suffix}'], tmp_path / 'out', unchanged)
    assert report.failed == []
    assert [path.name for path in report.done] == [f'a{result}']
    got = kinds.outside(report.done[0])
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    if wanted.dtype == np.float32:  # grey is mixed of three colours
        assert np.abs(got - wanted).max() <= 1e-6
    else:
        assert np.array_equal(got, wanted)
