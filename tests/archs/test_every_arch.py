"""What holds for every network of the registry that is ours."""

import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY

from ddsa_arch.models.restore import final_output, restore

SMALL = {'DDSANet': {'dim': 8, 'blocks': [1, 1, 1, 1, 1]}}
NETWORKS = sorted(
    name for name, part in ARCH_REGISTRY if part.__module__.startswith('ddsa_arch.') and hasattr(part, 'size_multiple')
)


@pytest.fixture(params=NETWORKS)
def net(request):
    torch.manual_seed(0)
    return ARCH_REGISTRY.get(request.param)(**SMALL[request.param])


def test_the_registry_holds_the_network_and_its_parts():
    assert {'DDSANet', 'DDSA', 'SEFN'} <= set(ARCH_REGISTRY.keys())
    assert NETWORKS == ['DDSANet']


def test_shape_is_kept(net):
    x = torch.rand(1, 3, 64, 64)
    assert final_output(net(x)).shape == x.shape


@pytest.mark.parametrize('size', [(1, 1), (1, 30), (37, 53), (8, 8)])
def test_any_size_is_restored_through_padding(net, size):
    x = torch.rand(1, 3, *size)
    out = restore(net, x)
    assert out.shape == x.shape
    assert out.isfinite().all()


def test_every_parameter_learns(net):
    final_output(net(torch.rand(2, 3, 64, 64))).mean().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_state_dict_survives_a_round_trip(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / 'net.pth')
    x = torch.rand(1, 3, 16, 16)
    before = final_output(net(x))
    for parameter in net.parameters():
        parameter.data.zero_()
    net.load_state_dict(torch.load(tmp_path / 'net.pth', weights_only=True), strict=True)
    assert torch.equal(final_output(net(x)), before)


def test_an_image_does_not_depend_on_its_neighbours_in_the_batch(net):
    net.eval().double()
    x = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    together = restore(net, x)
    assert (together[1:2] - restore(net, x[1:2])).abs().max() < 1e-12
