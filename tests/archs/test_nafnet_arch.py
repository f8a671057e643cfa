"""NAFNet against the outputs of the published network, its block against its equations pixel by pixel."""

import pytest
import torch
from torch import nn

from ddsa_arch.archs.nafnet_arch import NAFBlock, NAFNet

TINY = {'width': 8, 'middle_blk_num': 1, 'enc_blk_nums': [1, 1], 'dec_blk_nums': [1, 1]}


@pytest.mark.parametrize('size', ['1x3x44x58', pytest.param('1x3x64x64', marks=pytest.mark.slow)])
def test_the_published_outputs_are_reached(golden, size):
    file = golden('nafnet')
    run = file.spec['runs']['plain']
    run['outputs'] = {size: run['outputs'][size]}
    file.check(NAFNet(), lambda net, x: {'out': net(x)})


@pytest.mark.parametrize(
    ('arguments', 'parameters'),
    [
        ({}, 29_159_715),
        ({'width': 64}, 115_982_915),
        ({'middle_blk_num': 1, 'enc_blk_nums': [1, 1, 1, 28], 'dec_blk_nums': [1, 1, 1, 1]}, 17_111_907),
        ({'width': 64, 'middle_blk_num': 1, 'enc_blk_nums': [1, 1, 1, 28], 'dec_blk_nums': [1] * 4}, 67_888_835),
    ],
)
def test_parameters_are_the_published_ones(arguments, parameters):
    with torch.device('meta'):
        assert sum(p.numel() for p in NAFNet(**arguments).parameters()) == parameters


def block(dim=4):
    torch.manual_seed(0)
    made = NAFBlock(dim).double().eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


def normalised(pixel, weight, bias):
    mean = sum(pixel) / len(pixel)
    variance = sum((v - mean) ** 2 for v in pixel) / len(pixel)
    return torch.stack([(v - mean) / (variance + 1e-6) ** 0.5 for v in pixel]) * weight + bias


def times(layer, pixel):
    """A 1x1 convolution of one pixel's channels."""
    return layer.weight[:, :, 0, 0] @ pixel + layer.bias


@torch.no_grad()
def test_a_block_is_its_equations_pixel_by_pixel():
    net, (c, h, w) = block(), (4, 5, 3)
    x = torch.randn(1, c, h, w, dtype=torch.float64)
    places = [(i, j) for i in range(h) for j in range(w)]
    wide = torch.zeros(2 * c, h + 2, w + 2, dtype=torch.float64)  # with a frame of zeros
    for i, j in places:
        wide[:, i + 1, j + 1] = times(net.conv1, normalised(x[0, :, i, j], net.norm1.weight, net.norm1.bias))
    gated = torch.zeros(c, h, w, dtype=torch.float64)
    for i, j in places:
        mixed = [
            (wide[k, i : i + 3, j : j + 3] * net.conv2.weight[k, 0]).sum() + net.conv2.bias[k] for k in range(2 * c)
        ]
        gated[:, i, j] = torch.stack([mixed[k] * mixed[c + k] for k in range(c)])
    attention = times(net.sca[1], gated.mean((1, 2)))
    wanted = torch.empty_like(x)
    for i, j in places:
        y = x[0, :, i, j] + net.beta[0, :, 0, 0] * times(net.conv3, gated[:, i, j] * attention)
        hidden = times(net.conv4, normalised(y, net.norm2.weight, net.norm2.bias))
        wanted[0, :, i, j] = y + net.gamma[0, :, 0, 0] * times(net.conv5, hidden[:c] * hidden[c:])
    assert (net(x) - wanted).abs().max() < 1e-12


def test_an_untrained_block_is_the_identity():
    x = torch.rand(1, 4, 6, 5)
    assert torch.equal(NAFBlock(4)(x), x)


@torch.no_grad()
def test_an_odd_size_is_padded_with_zeros_at_the_bottom_and_on_the_right():
    torch.manual_seed(0)
    net = NAFNet(**TINY).eval()
    x = torch.rand(1, 3, 9, 14)
    padded = torch.zeros(1, 3, 12, 16)
    padded[..., :9, :14] = x
    assert torch.equal(net(x), net(padded)[..., :9, :14])


def test_wrong_arguments_are_refused_with_what_is_allowed():
    with pytest.raises(ValueError, match=r'dec_blk_nums: \[1\] has 1 entries and enc_blk_nums 2; wanted one for each'):
        NAFNet(**TINY | {'dec_blk_nums': [1]})
