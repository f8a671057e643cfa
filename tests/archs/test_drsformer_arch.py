"""DRSformer against the outputs of the published network."""

import math

import pytest
import torch
from torch import nn

from ddsa_arch.archs import drsformer_arch
from ddsa_arch.archs.drsformer_arch import MEFC, DRSformer, below_top_k
from ddsa_arch.models.training_step import checkpoint_blocks

SLOW = pytest.mark.slow


def with_fixed_selection(monkeypatch):
    """Outputs by published name; float32 lets the rows keep the scores that they kept in float64, the call before.

    At the golden inputs the k-th score of some rows leads the next by 2e-7 only, less than float32 is exact, and one
    exchange changes these outputs by up to 1. What is left to compare in float32 is all the arithmetic.
    """
    chosen = []

    def record(scores, kept):
        chosen.append(below_top_k(scores, kept))
        return chosen[-1]

    def outputs(net, x):
        if x.dtype == torch.float64:
            chosen.clear()
            monkeypatch.setattr(drsformer_arch, 'below_top_k', record)
        else:
            monkeypatch.setattr(drsformer_arch, 'below_top_k', lambda scores, kept: chosen.pop(0))
        return {'out': net(x)}

    return outputs


@pytest.mark.parametrize(
    ('name', 'size'),
    [
        ('drsformer', '1x3x40x56'),
        pytest.param('drsformer', '1x3x64x64', marks=SLOW),
        pytest.param('drsformer', '2x3x64x96', marks=SLOW),
        pytest.param('drsformer_no_mefc', '1x3x40x64', marks=SLOW),
        pytest.param('drsformer_no_mefc', '1x3x48x64', marks=SLOW),
    ],
)
def test_the_published_outputs_are_reached(golden, monkeypatch, name, size):
    file = golden(name)
    run = file.spec['runs']['plain']
    run['outputs'] = {size: run['outputs'][size]}
    file.check(DRSformer(mefc=name == 'drsformer'), with_fixed_selection(monkeypatch))


def test_scores_that_tie_with_the_kth_largest_all_stay():
    scores = torch.tensor([[3.0, 1.0, 2.0, 2.0, 2.0], [0.0] * 5, [1.0, 5.0, 4.0, 3.0, 2.0]])
    below = below_top_k(scores, [1, 2])
    assert below[0].tolist() == [[False, True, True, True, True], [False] * 5, [True, False, True, True, True]]
    assert below[1].tolist() == [[False, True, False, False, False], [False] * 5, [True, False, False, True, True]]


def test_gradients_under_autocast_are_near_those_in_float32_whatever_memory_held_before():
    torch.manual_seed(0)
    net = MEFC(16).to(memory_format=torch.channels_last)
    x = torch.randn(2, 16, 32, 40).to(memory_format=torch.channels_last)
    grads = []
    for enabled in (False, True):
        net.zero_grad()
        stale = [torch.full((size,), math.nan).bfloat16() for size in (100, 1000, 10_000, 100_000) for _ in range(20)]
        del stale
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            net(x).float().square().sum().backward()
        grads.append([p.grad for p in net.parameters()])
    for exact, rounded in zip(*grads, strict=True):
        assert (exact - rounded).norm() <= 0.1 * exact.norm()


def tiny(**changes):
    torch.manual_seed(0)
    return DRSformer(**({'dim': 8, 'num_blocks': (1, 1, 1, 1)} | changes))


def test_bias_reaches_every_convolution_but_those_of_the_compensators():
    net = tiny(bias=True)
    without = [name for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.bias is None]
    assert without
    assert all(name.startswith(('encoder_level0.', 'refinement.')) for name in without)


def test_checkpointed_blocks_give_the_same_gradients():
    x = torch.rand(1, 3, 16, 16)
    grads = []
    for checkpointed in (False, True):
        net = tiny()
        if checkpointed:
            checkpoint_blocks(net)
            assert not isinstance(net.refinement.layers[1]._ops[0].forward, type(net.forward))  # a partial now
        net(x).square().mean().backward()
        grads.append([p.grad for p in net.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'num_blocks': (1, 1)}, r'num_blocks: \[1, 1\] has 2 entries; one for each of the 4 levels'),
        ({'heads': (1,)}, r'heads: \[1\] has 1 entries'),
        ({'heads': (3, 2, 4, 8)}, 'heads: 3 does not divide the 8 channels; try 1'),
        ({'heads': (8, 2, 4, 8)}, 'heads: 8 leave 1 of 8 channels each.*try fewer'),
        ({'dim': 9}, 'dim: 9 is odd.*try 10'),
        ({'LayerNorm_type': 'LayerNorm'}, "LayerNorm_type: 'LayerNorm' is not known; choose one of WithBias, BiasFree"),
        ({'out_channels': 1}, 'out_channels: 1 is not inp_channels 3.*try out_channels 3'),
        ({'ffn_expansion_factor': 0.0}, 'expansion 0.0 leaves no hidden channel of 8'),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(arguments, words):
    with pytest.raises(ValueError, match=words):
        tiny(**arguments)
