"""Uformer against the published outputs, and its blocks against literal, slow twins of their description."""

import math
from itertools import chain, pairwise, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ddsa_arch.archs.blocks.u_shape import stage_drop_rates
from ddsa_arch.archs.blocks.window_attention import (
    LeFF,
    StochasticDepth,
    attend,
    from_windows,
    relative_position_index,
    to_windows,
)
from ddsa_arch.archs.uformer_arch import LeWinBlock, Uformer

SMALL = {'img_size': 64, 'embed_dim': 4, 'depths': [2] * 9, 'num_heads': [1, 2, 1, 2, 4, 4, 2, 1, 2], 'win_size': 4}


def small(**changes):
    torch.manual_seed(0)
    return Uformer(**(SMALL | changes))


def randomised(module):
    """Weights of every kind away from their initial values, so that each one matters; float64."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4
    return module.double()


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


def literal_norm(norm, vector):
    variance = ((vector - vector.mean()) ** 2).mean()
    return (vector - vector.mean()) / np.sqrt(variance + 1e-5) * array(norm.weight) + array(norm.bias)


def literal_linear(linear, vector):
    return array(linear.weight) @ vector + array(linear.bias)


def literal_gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def array(tensor):
    return tensor.detach().numpy()


def literal_window_attention(block, x):
    """(S)W-MSA of a normalised map (H, W, C), one pair of pixels after the other."""
    height, width, channels = x.shape
    side, shift, attn = block.window, block.shift, block.attn
    d = channels // attn.heads
    table, kv = array(attn.relative_position_bias_table), attn.qkv.to_kv

    def strip(place, length):
        return 2 if place >= length - shift else 1 if place >= length - side else 0

    def pixel(r, c):  # of the shifted map, with the modulator of its place in the window
        vector = x[(r + shift) % height, (c + shift) % width]
        place = (r % side) * side + c % side
        return vector if block.modulator is None else vector + array(block.modulator.weight)[place]

    out = np.zeros_like(x)
    for r, c in product(range(height), range(width)):
        top, left = r // side * side, c // side * side
        window = list(product(range(top, top + side), range(left, left + side)))
        q = literal_linear(attn.qkv.to_q, pixel(r, c))
        keys_values = [literal_linear(kv, pixel(*other)) for other in window]
        result = np.zeros(channels)
        for head in range(attn.heads):
            part = slice(head * d, (head + 1) * d)
            scores = []
            for (r2, c2), key_value in zip(window, keys_values, strict=True):
                row = (r - r2 + side - 1) * (2 * side - 1) + c - c2 + side - 1
                score = q[part] @ key_value[:channels][part] / math.sqrt(d) + table[row, head]
                regions = [(strip(r, height), strip(c, width)), (strip(r2, height), strip(c2, width))]
                scores.append(score if not shift or regions[0] == regions[1] else score - 100)
            weights = np.exp(np.array(scores) - max(scores))
            weights /= weights.sum()
            result[part] = sum(w * kv[channels:][part] for w, kv in zip(weights, keys_values, strict=True))
        out[(r + shift) % height, (c + shift) % width] = literal_linear(attn.proj, result)
    return out


def literal_leff(leff, x, residual=False):
    """LeFF of a map (H, W, C), one pixel after the other."""
    height, width, _ = x.shape
    inside = np.array([[literal_gelu(literal_linear(leff.linear1[0], v)) for v in row] for row in x])
    padded = np.pad(inside, ((1, 1), (1, 1), (0, 0)))
    kernel = array(leff.dwconv[0].weight)[:, 0]  # (hidden, 3, 3)
    out = np.zeros_like(x)
    for r, c in product(range(height), range(width)):
        b = sum(padded[r + i, c + j] * kernel[:, i, j] for i in range(3) for j in range(3))
        b = literal_gelu(b + array(leff.dwconv[0].bias))
        out[r, c] = literal_linear(leff.linear2[0], b + inside[r, c] if residual else b)
    return out


@pytest.mark.parametrize('modulator', [True, False])
@pytest.mark.parametrize(('window', 'shift', 'size'), [(4, 0, (4, 8)), (4, 2, (8, 4)), (3, 1, (6, 9)), (4, 2, (4, 4))])
def test_a_block_equals_its_description(window, shift, size, modulator):
    block = randomised(LeWinBlock(4, 2, window, shift, 6, modulator, drop_path=0.1)).eval()
    x = torch.randn(1, *size, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = array(x[0])
    y = y + literal_window_attention(block, np.array([[literal_norm(block.norm1, v) for v in row] for row in y]))
    y = y + literal_leff(block.mlp, np.array([[literal_norm(block.norm2, v) for v in row] for row in y]))
    assert np.abs(array(block(x))[0] - y).max() <= 1e-10 * np.abs(y).max()


@pytest.mark.parametrize('residual', [True, False])
def test_leff_equals_its_description_with_and_without_the_residual(residual):
    leff = randomised(LeFF(3, 5, residual))
    x = torch.randn(1, 4, 5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert np.abs(array(leff(x))[0] - literal_leff(leff, array(x[0]), residual)).max() <= 1e-12


def test_pixels_that_the_shift_alone_made_neighbours_do_not_see_each_other():
    block = randomised(LeWinBlock(4, 2, 4, 2, 6, True, drop_path=0.0))
    x = torch.randn(1, 8, 12, 4, dtype=torch.float64)
    before = block.attend_in_windows(x)
    x[:, 0, 0] += 10  # shares a shifted window with the other three corners
    changed = (block.attend_in_windows(x) - before).abs().sum((0, 3)) > 1e-12
    assert changed[:2, :2].all()
    assert changed.sum() == 4


def test_windows_are_cut_row_by_row_and_put_back():
    x = torch.arange(2 * 4 * 6).view(2, 4, 6, 1)
    windows = to_windows(x, 2)
    assert windows.shape == (2, 6, 4, 1)
    assert windows[0, :2, :, 0].tolist() == [[0, 1, 6, 7], [2, 3, 8, 9]]
    assert windows[1, 5, :, 0].tolist() == [40, 41, 46, 47]
    assert torch.equal(from_windows(windows, 4, 6), x)


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


def test_that_size_changes_the_output_for_the_same_weights():
    net, other = small().eval(), small(img_size=128).eval()
    for parameter, value in zip(other.parameters(), randomised(net).parameters(), strict=True):
        parameter.data = value.data
    x = torch.rand(1, 3, 128, 64, dtype=torch.float64)
    assert (net(x) - other.double()(x)).abs().max() > 1e-3


def test_the_index_of_the_biases_is_saved_with_the_weights():
    index = small().state_dict()['encoderlayer_0.blocks.0.attn.relative_position_index']
    assert index.dtype == torch.int64
    assert index.shape == (16, 16)


def test_only_the_decoder_has_modulators_and_twice_the_width():
    net, seen = small(), {}
    names = [f'encoderlayer_{i}' for i in range(4)] + ['conv'] + [f'decoderlayer_{i}' for i in range(4)]
    for name in names:
        getattr(net, name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: tuple(o.shape[1:])}))
    net(torch.rand(1, 3, 64, 128))
    assert [seen[name] for name in names] == [
        (64, 128, 4), (32, 64, 8), (16, 32, 16), (8, 16, 32), (4, 8, 64),
        (8, 16, 64), (16, 32, 32), (32, 64, 16), (64, 128, 8),
    ]  # fmt: skip
    assert {k.split('.')[0] for k in net.state_dict() if 'modulator' in k} == set(names[5:])
    assert [k for k in small(modulator=False).state_dict() if 'modulator' in k] == []


def test_an_upsampled_map_stands_before_the_skip():
    net = small().eval()
    seen = []
    net.encoderlayer_3.register_forward_hook(lambda m, i, o: seen.append(o))
    net.upsample_0.register_forward_hook(lambda m, i, o: seen.append(o))
    net.decoderlayer_0.register_forward_hook(lambda m, i, o: seen.extend(i))
    net(torch.rand(1, 3, 64, 64))
    skip, up, joined = seen
    assert torch.equal(joined, torch.cat([up, skip], dim=-1))


def test_the_input_projection_has_the_slope_of_pytorch():
    net = small()
    x = torch.rand(1, 3, 64, 64)
    conv = net.input_proj.proj[0]
    y = F.conv2d(x, conv.weight, conv.bias, padding=1)
    assert (net.input_proj(x) - torch.where(y > 0, y, 0.01 * y)).abs().max() < 1e-6


def test_the_network_adds_to_its_input():
    net = small()
    net.output_proj.proj[0].weight.data.zero_()
    net.output_proj.proj[0].bias.data.zero_()
    x = torch.rand(1, 3, 64, 128)
    assert torch.equal(net(x), x)


def parameters_by_hand(dim, depths, heads, modulator):
    """The parameters of Uformer with windows of 8, counted from its description."""

    def block(c, h, in_decoder):
        attention = 4 * (c * c + c) + 225 * h
        feed_forward = (c * 4 * c + 4 * c) + (9 * 4 * c + 4 * c) + (4 * c * c + c)
        return attention + feed_forward + 4 * c + 64 * c * in_decoder

    widths = [dim, 2 * dim, 4 * dim, 8 * dim, 16 * dim, 16 * dim, 8 * dim, 4 * dim, 2 * dim]
    total = 27 * dim + dim + 27 * 2 * dim + 3  # input and output
    total += sum(16 * a * b + b for a, b in pairwise(widths[:5]))  # down
    total += sum(4 * a * b // 2 + b // 2 for a, b in pairwise(widths[4:]))  # up
    stages = zip(depths, widths, heads, range(9), strict=True)
    return total + sum(n * block(c, h, modulator and i > 4) for n, c, h, i in stages)


@pytest.mark.parametrize(
    ('dim', 'depths', 'modulator', 'total', 'published'),
    [
        (32, (1, 2, 8, 8, 2, 8, 8, 2, 1), True, 50_880_946, 50.88),
        (32, (2,) * 9, False, 20_628_317, 20.63),  # Uformer-S
        (16, (2,) * 9, False, 5_230_413, 5.23),  # Uformer-T
        (32, (2,) * 9, True, 20_751_197, None),
        (16, (2,) * 9, True, 5_291_853, None),
    ],
)
def test_parameters_equal_a_count_by_hand_and_the_published_numbers(dim, depths, modulator, total, published):
    with torch.device('meta'):
        net = Uformer(embed_dim=dim, depths=depths, modulator=modulator)
    heads = (1, 2, 4, 8, 16, 16, 8, 4, 2)
    count = sum(p.numel() for p in net.parameters())
    assert count == parameters_by_hand(dim, depths, heads, modulator) == total
    if published:
        assert round(count / 1e6, 2) == published


def test_weights_begin_as_published():
    net = small()
    block = net.decoderlayer_0.blocks[0]
    assert block.attn.qkv.to_kv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.attn.relative_position_bias_table.std().item() == pytest.approx(0.02, rel=0.2)
    assert block.modulator.weight.std().item() == pytest.approx(1, rel=0.1)
    assert all(not m.bias.any() for m in net.modules() if isinstance(m, nn.Linear))


def test_every_parameter_learns():
    net = small(drop_path_rate=0.0)  # no branch left out
    net(torch.rand(2, 3, 64, 64)).square().mean().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


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


def test_an_image_does_not_depend_on_its_neighbours_in_the_batch_or_on_earlier_ones():
    net = randomised(small()).eval()
    x = torch.rand(3, 3, 64, 128, dtype=torch.float64)
    together = net(x)
    net(torch.rand(1, 3, 128, 64, dtype=torch.float64))
    alone = net(x[1:2])
    assert (together[1:2] - alone).abs().max() <= 1e-12 * alone.abs().max()


def test_the_scores_are_exact_under_mixed_precision():
    q, k, v = (torch.randn(2, 3, 5, 4).bfloat16() for _ in range(3))
    bias = torch.randn(1, 3, 5, 5)
    scores = q.float() @ k.float().transpose(-2, -1) / 2 + bias
    expected = (scores.softmax(-1) @ v.float()).transpose(1, 2).reshape(2, 5, 12)
    with torch.autocast('cpu', torch.bfloat16):
        out = attend(q, k, v, bias)
    assert out.dtype == torch.float32
    assert (out - expected).abs().max() < 1e-5


def test_it_can_be_exported():
    net, x = small().eval(), torch.rand(1, 3, 64, 128)
    exported = torch.export.export(net, (x,)).module()
    assert (exported(x) - net(x)).abs().max() < 1e-6


def test_mixed_precision_is_close_and_its_gradients_finite():
    net, x = small(), torch.rand(1, 3, 64, 64)
    net.eval()
    with torch.autocast('cpu', torch.bfloat16):
        out = net(x)
    assert (out - net(x)).abs().max() < 0.02
    out.float().mean().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


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
