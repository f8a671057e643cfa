"""The blocks of Restormer against literal, slow twins of their equations."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ddsa_arch.archs.blocks.gated_feedforward import GDFN, hidden_width
from ddsa_arch.archs.blocks.resample import Downsample, Upsample, under_body
from ddsa_arch.archs.blocks.transposed_attention import MDTA, TransformerBlock

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def randomised(module, dtype=torch.float64):
    """Weights of every kind away from their initial values, so that each one matters."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3
        if name.endswith('temperature'):
            parameter.data += 5.0
    return module.to(dtype)


def noise(*shape, dtype=torch.float64, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def literal_gate(a, activation):
    if activation is None:
        return a * 0.5 * (1 + torch.erf(a / math.sqrt(2)))
    return torch.where(a > 0, a, activation.weight * a)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('gate', [None, nn.PReLU])
def test_gdfn_equals_its_equations(gate, dtype):
    net = randomised(GDFN(7, activation=gate and gate()), dtype)
    x = noise(2, 7, 6, 5, dtype=dtype)
    hidden = 18  # int(7 * 2.66)
    y = F.conv2d(F.conv2d(x, net.project_in.weight), net.dwconv.weight, padding=1, groups=2 * hidden)
    y = literal_gate(y[:, :hidden], gate and net.act1) * y[:, hidden:]
    expected = F.conv2d(y, net.project_out.weight)
    for layout in LAYOUTS:
        difference = (net(x.contiguous(memory_format=layout)) - expected).abs().max().item()
        assert difference <= TOLERANCE[dtype] * max(1.0, expected.abs().max().item())


def test_only_a_gate_with_a_parameter_adds_a_key():
    keys = {'project_in.weight', 'dwconv.weight', 'project_out.weight'}
    assert GDFN(4).state_dict().keys() == keys
    assert GDFN(4, activation=nn.PReLU()).state_dict().keys() == keys | {'act1.weight'}


@pytest.mark.parametrize(('dim', 'width'), [(32, 85), (48, 127), (96, 255), (192, 510), (384, 1021)])
def test_the_hidden_width_is_cut_off_to_an_integer(dim, width):
    assert hidden_width(dim, 2.66) == width


def test_the_block_adds_attention_and_then_the_feed_forward_network():
    x = noise(1, 2, 3, 4)
    block = TransformerBlock(2, nn.Sigmoid(), nn.Tanh()).double()
    middle = x + torch.sigmoid(F.layer_norm(x.movedim(1, -1), (2,)).movedim(-1, 1))
    expected = middle + torch.tanh(F.layer_norm(middle.movedim(1, -1), (2,)).movedim(-1, 1))
    assert (block(x) - expected).abs().max() <= 1e-12


def test_a_block_has_the_published_names_with_and_without_bias_in_its_norms():
    block = TransformerBlock(4, MDTA(4, 2), GDFN(4))
    norms = {key for key in block.state_dict() if key.startswith('norm')}
    assert norms == {'norm1.body.weight', 'norm1.body.bias', 'norm2.body.weight', 'norm2.body.bias'}
    assert {key for key in block.state_dict() if key.startswith('attn')} == {
        'attn.temperature', 'attn.qkv.weight', 'attn.qkv_dwconv.weight', 'attn.project_out.weight'
    }  # fmt: skip
    free = TransformerBlock(4, MDTA(4, 2), GDFN(4), norm_bias=False)
    assert {key for key in free.state_dict() if key.startswith('norm')} == {'norm1.body.weight', 'norm2.body.weight'}


@pytest.mark.parametrize('kind', [Downsample, Upsample])
def test_resampling_under_published_names_does_the_same(kind):
    block = randomised(kind(4))
    renamed = under_body(block)
    x = noise(1, 4, 6, 8)
    assert list(renamed.state_dict()) == ['body.0.weight']
    assert torch.equal(renamed(x), block(x))


@pytest.mark.parametrize(
    ('build', 'words'),
    [
        (lambda: MDTA(10, 4), 'heads: 4 does not divide the 10 channels; try 2'),
        (lambda: MDTA(10, 0), 'heads: 0 does not divide the 10 channels; try 1'),
        (lambda: GDFN(4, expansion=0.2), 'expansion 0.2 leaves no hidden channel of 4 channels'),
    ],
)
def test_wrong_arguments_are_refused_with_a_remedy(build, words):
    with pytest.raises(ValueError, match=words):
        build()
