"""Reports on the way through a large image."""

import numpy as np
import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from ddsa_arch import Derainer
from ddsa_arch.archs.building import build_network
from ddsa_arch.archs.weights import write_weights
from ddsa_arch.inference import derainer as module
from ddsa_arch.inference.image_progress import ImageProgress
from ddsa_arch.models.restore import restore


@ARCH_REGISTRY.register()
class OneLayer(nn.Module):
    """Its only layer gives as much for each pixel of a tile."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, rain):
        return self.layer(rain).sigmoid()


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / 'one.pth'
    write_weights(path, OneLayer().state_dict(), {'type': 'OneLayer'}, {})
    return path


@pytest.fixture
def large(monkeypatch):
    """An image that counts as one."""
    monkeypatch.setattr(module, 'REPORTED', 128 * 160)
    return np.zeros((128, 160, 3), np.uint8)


def test_each_tile_counts_as_much(weights, large):
    reports = []
    Derainer(weights, device='cpu', tile=64)(large, progress=reports.append)
    tiles = 3 * 4  # of 64 pixels every 32
    assert reports == pytest.approx([(k + 1) / tiles for k in range(tiles)])


@pytest.mark.parametrize('views', [4, 8])
def test_each_view_of_an_ensemble_counts_as_much(weights, large, views):
    reports = []
    Derainer(weights, device='cpu', tile=None)(large, ensemble=views, progress=reports.append)
    assert reports == pytest.approx([(k + 1) / views for k in range(views)])


def test_small_images_are_not_reported(weights, large):
    reports = []
    Derainer(weights, device='cpu')(large[:-1], progress=reports.append)
    assert reports == []


@pytest.mark.parametrize(
    'network',
    [
        {'type': 'DDSANet', 'dim': 16, 'blocks': [1, 1, 1, 1, 1]},
        {'type': 'PReNet'},
        {'type': 'MPRNet', 'n_feat': 8},
    ],
    ids=lambda network: network['type'],
)
def test_networks_come_to_their_end_steadily(network):
    net, reports = build_network(network).eval(), []
    rain = torch.rand(1, 3, 256, 192)
    with ImageProgress(net, rain.device).reporting(256 * 192, reports.append):
        restore(net, rain)
    assert reports == sorted(reports)
    assert reports[-1] == 1
    assert len(reports) > 10
    assert np.diff([0, *reports]).max() < 0.25


def test_nothing_is_left_in_the_network():
    net = build_network({'type': 'PReNet'}).eval()
    with pytest.raises(ZeroDivisionError), ImageProgress(net, torch.device('cpu')).reporting(1, lambda done: 1 / 0):
        restore(net, torch.rand(1, 3, 32, 32))
    assert not any(layer._forward_hooks for layer in net.modules())
