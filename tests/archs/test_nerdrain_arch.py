"""NeRD-Rain against the outputs of the published networks, and its implicit head against a linear layer of pixels."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ddsa_arch.archs.nerdrain_arch import BidirectionalFusion, ImplicitHead, NeRDRain

SLOW = pytest.mark.slow
NAMES = ('small_input', 'small_inr', 'mid_input', 'mid_inr', 'small', 'mid', 'full')
TINY = {'dim': 8, 'num_blocks': [1, 1, 1]}


def published(net, x):
    return dict(zip(NAMES, net(x), strict=True))


@pytest.mark.parametrize(
    ('name', 'dim', 'size'),
    [
        ('nerdrain_s', 32, '1x3x32x48'),
        pytest.param('nerdrain_s', 32, '1x3x64x64', marks=SLOW),
        pytest.param('nerdrain', 48, '1x3x32x48', marks=SLOW),
        pytest.param('nerdrain', 48, '1x3x64x64', marks=SLOW),
    ],
)
def test_the_published_outputs_are_reached(golden, name, dim, size):
    file = golden(name)
    run = file.spec['runs']['plain']
    run['outputs'] = {size: run['outputs'][size]}
    file.check(NeRDRain(dim=dim), published)


@pytest.mark.parametrize(('dim', 'parameters'), [(48, 22_893_146), (32, 10_530_314)])
def test_parameters_are_the_published_ones(dim, parameters):
    with torch.device('meta'):
        assert sum(p.numel() for p in NeRDRain(dim=dim).parameters()) == parameters


@torch.no_grad()
def test_the_implicit_head_is_a_perceptron_of_each_pixels_neighbourhood_zeros_and_two_twos():
    torch.manual_seed(0)
    dim, height, width = 4, 5, 6
    head = ImplicitHead(dim).double()
    x = torch.randn(2, dim, height, width, dtype=torch.float64)
    neighbours = F.unfold(x, 3, padding=1).transpose(1, 2)  # (B, N, 9 dim): channel, row, column
    rest = torch.cat((torch.zeros(18), torch.full((2,), 2.0))).double().expand(2, height * width, 20)
    values = torch.cat((neighbours, rest), dim=2)
    layers = head.imnet.layers
    for place in (0, 2, 4, 6):
        values = F.linear(values, layers[place].weight, layers[place].bias)
        values = values.clamp_min(0) if place < 6 else values
    wanted = values.transpose(1, 2).unflatten(2, (height, width))
    assert (head(x) - wanted).abs().max() < 1e-12


@torch.no_grad()
def test_the_fusion_weighs_both_features_and_what_they_share_by_four_maps():
    torch.manual_seed(0)
    net = BidirectionalFusion(4).double()
    p, q = torch.randn(2, 1, 4, 5, 6, dtype=torch.float64)
    wanted = torch.zeros(1, 4, 5, 6, dtype=torch.float64)
    shared = 1 / (1 + torch.exp(-net.query_conv(p) * net.key_conv(q)))
    g, h = net.gamma1(torch.cat((p, p * shared), 1)), net.gamma2(torch.cat((q, q * shared), 1))
    for k in range(4):
        wanted[:, k] = p[:, k] * g[:, 0] + p[:, k] * shared[:, k] * g[:, 1]
        wanted[:, k] += q[:, k] * h[:, 0] + q[:, k] * shared[:, k] * h[:, 1]
    assert (net(p, q) - wanted).abs().max() < 1e-12


def test_the_third_decoder_uses_the_seconds_reduction_and_the_one_of_its_own_is_frozen():
    net = NeRDRain(**TINY)
    calls = []
    net.reduce_chan_level1_max2.register_forward_hook(lambda *_: calls.append(2))
    net.reduce_chan_level1_max3.register_forward_hook(lambda *_: calls.append(3))
    net(torch.rand(1, 3, 16, 16))
    assert calls == [2, 2]
    assert not net.reduce_chan_level1_max3.weight.requires_grad


def test_outputs_run_from_the_coarse_input_to_the_final_image():
    net = NeRDRain(**TINY).eval()
    for layer in (net.output_small, net.output_mid, net.output_max, net.INR, net.INR2):
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
    x = torch.rand(1, 3, 32, 48)
    half, quarter = x[..., ::2, ::2], x[..., ::4, ::4]
    found = published(net, x)
    doubled = half + quarter.repeat_interleave(2, 2).repeat_interleave(2, 3)  # the implicit image is the input's own
    wanted = dict(zip(NAMES, (quarter, quarter, doubled / 2, doubled, quarter, half, x), strict=True))
    assert [name for name in NAMES if not torch.equal(found[name], wanted[name])] == []


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'out_channels': 1}, 'inp_channels: 3, out_channels: 1; residuals of RGB want 3 and 3'),
        ({'num_blocks': [1, 1]}, r'num_blocks: \[1, 1\] has 2 entries; one for each of the 3 levels'),
        ({'heads': [1, 2, 4, 8]}, 'heads: .* has 4 entries'),
        ({'heads': [3, 2, 4]}, 'heads: 3 does not divide the 8 channels; try 1'),
        ({'LayerNorm_type': 'None'}, "LayerNorm_type: 'None' is not known; choose one of WithBias, BiasFree"),
        ({'ffn_expansion_factor': 0.1}, 'expansion 0.1 leaves no hidden channel of 8'),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(arguments, words):
    with pytest.raises(ValueError, match=words):
        NeRDRain(**TINY | arguments)
