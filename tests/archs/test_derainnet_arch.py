"""DerainNet against a literal twin of its description."""

import numpy as np
import pytest
import torch

from ddsa_arch.archs.complexity import complexity
from ddsa_arch.archs.derainnet_arch import DerainNet, symmetric_pad
from ddsa_arch.losses.detail_loss import DetailLoss
from ddsa_arch.ops.guided_filter import base_layer

ACTIVATIONS = {'relu': lambda x: x.clamp(min=0), 'tanh': torch.tanh}


def build(**arguments):
    torch.manual_seed(0)
    net = DerainNet(**{'channels': 4} | arguments).double().eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net


def literal_cnn(net, x, activation):
    """The three layers on ``(3, h, w)`` without any padding, one pixel after the other -> (3, h - 8, w - 8)."""
    k1, b1, k2, b2, k3, b3 = net.state_dict().values()
    height, width = x.shape[1] - 15, x.shape[2] - 15
    y = torch.zeros(3, height + 7, width + 7, dtype=x.dtype) + b3[:, None, None]
    for row in range(height):
        for column in range(width):
            window = x[:, row : row + 16, column : column + 16]
            features = ACTIVATIONS[activation]((k1 * window).sum((1, 2, 3)) + b1)
            features = ACTIVATIONS[activation](k2[:, :, 0, 0] @ features + b2)
            y[:, row : row + 8, column : column + 8] += torch.einsum('i,iohw->ohw', features, k3)
    return y


def literal(net, image, activation):
    """Detail and image, each (B, 3, H, W)."""
    padded = torch.from_numpy(np.pad(image.numpy(), ((0, 0), (0, 0), (10, 10), (10, 10)), 'symmetric'))
    base = base_layer(padded)
    detail = torch.stack([literal_cnn(net, x, activation) for x in padded - base])[..., 6:-6, 6:-6]
    return detail, base[..., 10:-10, 10:-10] + detail


@pytest.mark.parametrize('activation', ACTIVATIONS)
@pytest.mark.parametrize('shape', [(2, 3, 13, 9), (1, 3, 4, 22)])
def test_the_network_equals_its_description(shape, activation):
    net = build(activation=activation, return_detail=True)
    image = torch.rand(shape, dtype=torch.float64)
    detail, clean = literal(net, image, activation)
    assert detail.std() > 0.1
    with torch.no_grad():
        found = net(image)
        net.return_detail = False
        assert torch.equal(net(image), found[1])
    assert len(found) == 2
    assert (found[0] - detail).abs().max() < 1e-11
    assert (found[1] - clean).abs().max() < 1e-11


@pytest.mark.parametrize('size', [(1, 1), (1, 7), (3, 2), (9, 10), (10, 11), (40, 5)])
@pytest.mark.parametrize('padding', [1, 10, 25])
def test_padding_repeats_the_edge_pixel_for_any_size(size, padding):
    x = torch.rand(2, 3, *size)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (padding, padding), (padding, padding)), 'symmetric')
    assert torch.equal(symmetric_pad(x, padding), torch.from_numpy(expected))
    again = symmetric_pad(x.to(memory_format=torch.channels_last), padding)
    assert torch.equal(again, torch.from_numpy(expected))


def test_a_flat_image_has_no_detail():
    net = build()
    for parameter in list(net.parameters())[1::2]:
        torch.nn.init.zeros_(parameter)  # biases
    x = torch.full((1, 3, 12, 20), 0.4, dtype=torch.float64)
    assert torch.allclose(net(x), x, rtol=0, atol=1e-12)


def test_the_published_sizes_are_reached():
    net = DerainNet()
    assert [sum(p.numel() for p in layer.parameters()) for layer in net.cnn[::2]] == [393_728, 262_656, 98_307]
    found = complexity(net)
    assert found.parameters == 754_691
    assert found.macs == (256 + 20 - 15) ** 2 * (16 * 16 * 3 * 512 + 512 * 512 + 8 * 8 * 3 * 512)
    assert net.cnn(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 56, 56)


def test_the_published_loss_takes_what_the_network_gives_and_all_parameters_learn():
    net = build(return_detail=True).train()
    x, target = torch.rand(2, 2, 3, 20, 24, dtype=torch.float64)
    loss = DetailLoss()(net(x), target)
    loss.backward()
    assert [n for n, p in net.named_parameters() if not p.grad.abs().sum() > 0] == []
    inner = (..., slice(4, -4), slice(4, -4))
    wanted = (literal(net, x, 'relu')[0] - (target - base_layer(target)))[inner]
    assert loss.item() == pytest.approx((wanted**2).mean().item(), rel=1e-10)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'channels': 0}, 'channels: 0 is below 1; the published network has 512'),
        ({'activation': 'gelu'}, "activation: 'gelu' is not known; choose one of 'relu', 'tanh'"),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(arguments, words):
    with pytest.raises(ValueError, match=words):
        DerainNet(**arguments)
