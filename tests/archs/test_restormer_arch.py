"""Restormer against the outputs of the published network."""

import pytest
import torch

from ddsa_arch.archs.restormer_arch import Restormer


@pytest.mark.parametrize(
    'size', ['1x3x40x56', *(pytest.param(size, marks=pytest.mark.slow) for size in ('1x3x64x64', '2x3x64x96'))]
)
def test_the_published_outputs_are_reached(golden, size):
    file = golden('restormer')
    run = file.spec['runs']['plain']
    run['outputs'] = {size: run['outputs'][size]}
    file.check(Restormer(), lambda net, x: {'out': net(x)})


def tiny(**changes):
    torch.manual_seed(0)
    return Restormer(**({'dim': 8, 'num_blocks': (1, 1, 1, 1), 'num_refinement_blocks': 1} | changes))


def test_a_bias_free_norm_does_not_centre_its_input():
    net = tiny(LayerNorm_type='BiasFree')
    assert not [key for key in net.state_dict() if key.endswith('body.bias')]
    x = torch.full((1, 8, 2, 2), 3.0)
    assert net.encoder_level1[0].norm1(x).min() > 100  # 3 / sqrt(0 + 1e-5); with bias it would be 0
    assert tiny().encoder_level1[0].norm1(x).abs().max() == 0


def test_bias_reaches_every_convolution_and_by_default_none():
    def with_bias(net):
        return {m.bias is not None for m in net.modules() if isinstance(m, torch.nn.Conv2d)}

    assert with_bias(tiny(bias=True)) == {True}
    assert with_bias(tiny()) == {False}


def test_two_views_give_one_image_that_takes_nothing_from_the_input_directly():
    net = tiny(dual_pixel_task=True, inp_channels=6)
    x = torch.rand(1, 6, 16, 16)
    assert net(x).shape == (1, 3, 16, 16)
    assert net.skip_conv.weight.shape == (16, 8, 1, 1)
    net.refinement.register_forward_hook(lambda module, inputs, output: output * 0)
    assert torch.equal(net(x), net.output(net.skip_conv(net.patch_embed(x))))


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'num_blocks': (1, 1)}, r'num_blocks: \[1, 1\] has 2 entries; one for each of the 4 levels'),
        ({'heads': (1, 2, 4, 8, 8)}, 'heads: .* has 5 entries'),
        ({'heads': (1, 3, 4, 8)}, 'heads: 3 does not divide the 16 channels; try 1'),
        ({'heads': (1, 0, 4, 8)}, 'heads: 0 does not divide the 16 channels; try 1'),
        ({'dim': 7}, 'dim: 7 is odd.*try 8'),
        ({'LayerNorm_type': 'withbias'}, "LayerNorm_type: 'withbias' is not known; choose one of WithBias, BiasFree"),
        ({'inp_channels': 6}, 'out_channels: 3 is not inp_channels 6.*try out_channels 6'),
        ({'ffn_expansion_factor': 0.1}, 'expansion 0.1 leaves no hidden channel of 8'),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(arguments, words):
    with pytest.raises(ValueError, match=words):
        tiny(**arguments)
