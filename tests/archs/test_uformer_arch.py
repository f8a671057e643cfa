"""Uformer against the outputs of the published network."""

from itertools import chain, product

import numpy as np
import pytest
import torch
from torch import nn

from ddsa_arch.archs.blocks.u_shape import stage_drop_rates
from ddsa_arch.archs.blocks.window_attention import (
    StochasticDepth,
    attend,
    relative_position_index,
)
from ddsa_arch.archs.uformer_arch import Uformer

SMALL = {'img_size': 64, 'embed_dim': 4, 'depths': [2] * 9, 'num_heads': [1, 2, 1, 2, 4, 4, 2, 1, 2], 'win_size': 4}


def small(**changes):
    torch.manual_seed(0)
    return Uformer(**(SMALL | changes))


def outputs(net, x):
    return {'out': net(x)}


def test_the_published_outputs_are_reached(golden):
    golden('uformer').check(Uformer(), outputs)


@pytest.mark.slow
@pytest.mark.parametrize(('run', 'img_size'), [('batch2', 128), ('nonsquare_patched', 128), ('256_ctor128', 128),
                                               ('256_ctor256', 256)])  # fmt: skip
def test_the_published_outputs_are_reached_at_other_sizes(golden, run, img_size):
    golden('uformer').check(Uformer(img_size=img_size), outputs, run=run)


def test_no_golden_run_is_left_out(golden):
    assert golden('uformer').runs() == ['plain', 'batch2', '256_ctor128', '256_ctor256', 'nonsquare_patched']


@pytest.mark.parametrize(('side', 'reach'), [(8, None), (4, 4), (4, 2), (2, 8), (1, 2)])
def test_the_bias_index_is_the_clamped_distance_of_query_and_key(side, reach):
    index = relative_position_index(side, reach)
    reach = reach or side
    places = list(product(range(side), range(side)))
    for i, j in product(range(side**2), repeat=2):
        dy, dx = (min(max(a - b, 1 - reach), reach - 1) for a, b in zip(places[i], places[j], strict=True))
        assert index[i, j] == (dy + reach - 1) * (2 * reach - 1) + dx + reach - 1
    assert index.dtype == torch.int64


def test_a_whole_branch_is_dropped_for_a_sample_and_the_mean_is_kept():
    depth = StochasticDepth(0.25)
    x = torch.ones(4000, 2, 3)
    torch.manual_seed(0)
    out = depth(x)
    assert set(out.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert torch.equal(out.amin((1, 2)), out.amax((1, 2)))
    assert abs(out.mean().item() - 1) < 0.03
    torch.manual_seed(0)
    assert torch.equal(depth(x), out)
    assert depth(x.bfloat16()).dtype == torch.bfloat16
    assert torch.equal(depth.eval()(x), x)


def test_the_rates_of_stochastic_depth_rise_to_the_bottleneck_and_fall_again():
    rates = stage_drop_rates((1, 2, 8, 8, 2, 8, 8, 2, 1), 0.1)
    encoder, decoder = list(chain(*rates[:4])), list(chain(*rates[5:]))
    assert encoder == pytest.approx(np.linspace(0, 0.1, 19))
    assert decoder == encoder[::-1]
    assert rates[4] == [0.1, 0.1]
    assert [len(r) for r in rates] == [1, 2, 8, 8, 2, 8, 8, 2, 1]
    net = small(depths=[1, 2, 1, 1, 2, 1, 1, 1, 1], drop_path_rate=0.4)
    stages = [net.get_submodule(f'encoderlayer_{i}').blocks for i in range(4)]
    stages += [net.conv.blocks] + [net.get_submodule(f'decoderlayer_{i}').blocks for i in range(4)]
    found = [block.drop_path.rate for block in chain(*stages)]
    assert found == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.3, 0.2, 0.1])


def test_a_network_in_training_draws_and_one_in_evaluation_does_not():
    net, x = small(drop_path_rate=0.5), torch.rand(2, 3, 64, 64)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize(('img_size', 'shift'), [(128, 0), (256, 4)])
def test_the_size_of_the_constructor_decides_whether_the_bottleneck_shifts(img_size, shift):
    with torch.device('meta'):
        net, other = Uformer(img_size=img_size), Uformer()
    assert [block.shift for block in net.conv.blocks] == [0, shift]
    assert [block.shift for block in net.encoderlayer_3.blocks] == [0, 4] * 4
    assert [block.shift for block in net.decoderlayer_0.blocks] == [0, 4] * 4
    assert [block.shift for block in net.encoderlayer_0.blocks] == [0]
    shapes, other_shapes = ({k: v.shape for k, v in n.state_dict().items()} for n in (net, other))
    assert shapes == other_shapes


@pytest.mark.parametrize(('dim', 'published'), [(32, 20_628_317), (16, 5_230_413)], ids=['Uformer-S', 'Uformer-T'])
def test_the_smaller_networks_have_no_modulators_and_the_published_size(dim, published):
    with torch.device('meta'):
        net = Uformer(embed_dim=dim, depths=(2,) * 9, modulator=False)
    assert sum(p.numel() for p in net.parameters()) == published
    assert [k for k in net.state_dict() if 'modulator' in k] == []


def test_weights_begin_as_published():
    net = small()
    block = net.decoderlayer_0.blocks[0]
    assert block.attn.qkv.to_kv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.attn.relative_position_bias_table.std().item() == pytest.approx(0.02, rel=0.2)
    assert block.modulator.weight.std().item() == pytest.approx(1, rel=0.1)
    assert all(not m.bias.any() for m in net.modules() if isinstance(m, nn.Linear))


@pytest.mark.parametrize(
    ('img_size', 'win_size', 'multiple'),
    [(128, 8, 128), (256, 8, 128), (192, 8, 128), (64, 8, 64), (128, 4, 64), (32, 1, 16), (80, 4, 64), (48, 4, 96)],
)
def test_the_size_multiple_follows_from_the_windows(img_size, win_size, multiple):
    net = small(img_size=img_size, win_size=win_size)
    x = torch.rand(1, 3, multiple, multiple)
    assert net.size_multiple == multiple
    assert net(x).shape == x.shape


@pytest.mark.parametrize('size', [(64, 96), (32, 64), (72, 64)])
def test_a_size_between_is_refused(size):
    with pytest.raises(RuntimeError):
        small()(torch.rand(1, 3, *size))


def test_the_scores_are_exact_under_mixed_precision():
    q, k, v = (torch.randn(2, 3, 5, 4).bfloat16() for _ in range(3))
    bias = torch.randn(1, 3, 5, 5)
    scores = q.float() @ k.float().transpose(-2, -1) / 2 + bias
    expected = (scores.softmax(-1) @ v.float()).transpose(1, 2).reshape(2, 5, 12)
    with torch.autocast('cpu', torch.bfloat16):
        out = attend(q, k, v, bias)
    assert out.dtype == torch.float32
    assert (out - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'img_size': 100}, 'img_size: 100 is not a multiple of 16; try 112'),
        ({'img_size': 0}, 'img_size: 0 .* try 16'),
        ({'depths': (2, 2)}, 'depths: .* 2 entries; one for each of the 9'),
        ({'depths': (1, 1, 1, 0, 1, 1, 1, 1, 1)}, 'a stage without blocks'),
        ({'depths': (1, 1, 1, 1, 1, 2, 1, 1, 1)}, '5 blocks in the decoder and 4 in the encoder'),
        ({'num_heads': (1, 2)}, 'num_heads: .* 2 entries; one for each of 9'),
        ({'num_heads': (3, 1, 1, 1, 1, 1, 1, 1, 1)}, 'num_heads: 3 does not divide the 4 channels'),
        ({'num_heads': (0, 1, 1, 1, 1, 1, 1, 1, 1)}, 'num_heads: 0'),
        ({'win_size': 0}, 'win_size: 0'),
        ({'mlp_ratio': 0.1}, 'mlp_ratio: 0.1'),
        ({'drop_path_rate': 1.0}, r'drop_path_rate: 1.0 is outside \[0, 1\)'),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(arguments, words):
    with pytest.raises(ValueError, match=words):
        small(**arguments)
