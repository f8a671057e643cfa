"""IDT against the published outputs, and its blocks against literal, slow twins of their description."""

import math
from itertools import chain, product

import pytest
import torch
from torch import nn

from ddsa_arch.archs.idt_arch import IDT, PositionAttention, SpatialBlock, WindowBlock

SMALL = {'img_size': 64, 'embed_dim': 4, 'depths': [1] * 9, 'num_heads': [1, 2, 1, 2, 4, 4, 2, 1, 2]}


def small(**changes):
    torch.manual_seed(0)
    return IDT(**(SMALL | changes))


def randomised(module):
    """Weights of every kind away from their initial values, so that each one matters; float64."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return module.double()


def outputs(net, x):
    return {'out': net(x)}


def test_the_published_outputs_are_reached(golden):
    golden('idt').check(IDT(), outputs, run='gain0p7')


@pytest.mark.slow
@pytest.mark.parametrize('run', ['gain0p7_batch2', 'plain', 'batch2'])
def test_the_published_outputs_are_reached_by_the_longer_runs(golden, run):
    # with weights of gain 1 the published code itself is off by a third of its largest value in float32
    golden('idt').check(IDT(), outputs, run=run, float32=False)


def test_no_golden_run_is_left_out(golden):
    assert golden('idt').runs() == ['gain0p7', 'gain0p7_batch2', 'plain', 'batch2']


def literal_attention(attn, x):
    """PositionAttention of the tokens (N, d) of one sequence, one pair after the other."""
    tokens, d = x.shape
    side, heads = math.isqrt(tokens), attn.heads
    size = d // heads
    table = attn.relative_position_bias_table
    reach = (math.isqrt(len(table)) + 1) // 2
    q = x @ attn.qkv.to_q.weight.T + attn.qkv.to_q.bias
    kvu = x @ attn.qkv.to_kv.weight.T + attn.qkv.to_kv.bias
    k, v, u = kvu[:, :d], kvu[:, d : 2 * d], kvu[:, 2 * d :]
    out = torch.zeros_like(x)
    for head, i in product(range(heads), range(tokens)):
        part = slice(head * size, (head + 1) * size)
        scores = []
        for j in range(tokens):
            dy, dx = i // side - j // side, i % side - j % side
            dy, dx = (max(-(reach - 1), min(reach - 1, t)) for t in (dy, dx))
            bias = table[(dy + reach - 1) * (2 * reach - 1) + dx + reach - 1, head]
            scores.append(q[i, part] @ k[j, part] * size**-0.5 + bias)
        out[i, part] = torch.stack(scores).softmax(0) @ v[:, part]
    depthwise, pointwise = attn.Position_Extract
    half = 2 if side >= 3 else 1 if side == 2 else 0  # kernels of 5, 3 and 1
    assert depthwise.weight.shape == (d, 1, 2 * half + 1, 2 * half + 1)
    first = torch.zeros_like(u)
    for y, x_, dy, dx in product(range(side), range(side), range(-half, half + 1), range(-half, half + 1)):
        if 0 <= y + dy < side and 0 <= x_ + dx < side:
            weight = depthwise.weight[:, 0, dy + half, dx + half]
            first[y * side + x_] += weight * u[(y + dy) * side + x_ + dx]
    first = first + depthwise.bias
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        out[:, part] += first[:, part] @ pointwise.weight[part, :, 0, 0].T + pointwise.bias[part]
    return out @ attn.proj.weight.T + attn.proj.bias


@pytest.mark.parametrize(('side', 'reach'), [(1, 2), (2, 2), (2, 8), (3, 3), (5, 3), (4, 8)])
@torch.no_grad()
def test_the_attention_equals_its_description(side, reach):
    attn = randomised(PositionAttention(6, 2, side, reach))
    x = torch.randn(2, side * side, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.stack([literal_attention(attn, sequence) for sequence in x])
    assert (attn(x) - expected).abs().max() <= 1e-11 * expected.abs().max()


def literal_leff(block, x):
    """LeFF of norm2 of a map (H, W, C), the residual inside."""
    leff = block.mlp
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    y = (x - mean) / torch.sqrt(variance + 1e-5) * block.norm2.weight + block.norm2.bias
    a = y @ leff.linear1[0].weight.T + leff.linear1[0].bias
    a = a * 0.5 * (1 + torch.erf(a / math.sqrt(2)))
    padded = nn.functional.pad(a, (0, 0, 1, 1, 1, 1))
    kernel = leff.dwconv[0].weight[:, 0]
    b = sum(
        padded[i : i + x.shape[0], j : j + x.shape[1]] * kernel[:, i, j] for i, j in product(range(3), range(3))
    )  # fmt: skip
    b = b + leff.dwconv[0].bias
    b = b * 0.5 * (1 + torch.erf(b / math.sqrt(2)))
    return (b + a) @ leff.linear2[0].weight.T + leff.linear2[0].bias


@torch.no_grad()
def test_a_window_block_equals_its_description():
    block = randomised(WindowBlock(4, 2, 4, drop_path=0.1)).eval()
    x = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for image, out in zip(x, block(x), strict=True):
        mean, variance = image.mean(-1, keepdim=True), image.var(-1, unbiased=False, keepdim=True)
        normed = (image - mean) / torch.sqrt(variance + 1e-5) * block.norm1.weight + block.norm1.bias
        y = image.clone()
        for top in (0, 4):
            window = normed[top : top + 4].reshape(16, 4)
            y[top : top + 4] += literal_attention(block.attn, window).view(4, 4, 4)
        y = y + literal_leff(block, y)
        assert (out - y).abs().max() <= 1e-11 * y.abs().max()


@torch.no_grad()
def test_a_spatial_block_adds_windows_to_rows_of_pixels_as_the_published_weights_want_it():
    block = randomised(SpatialBlock(2, 4, 2, 2, drop_path=0.1)).eval()
    x = torch.randn(2, 16, 16, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for image, out in zip(x, block(x), strict=True):
        y = image.clone()
        for channel in range(2):
            tokens = [image[r : r + 8, c : c + 8, channel].reshape(64) for r in (0, 8) for c in (0, 8)]
            attended = literal_attention(block.attn, torch.stack(tokens))  # (4 windows, 64 pixels), no norm before
            for p in range(256):
                y[p // 16, p % 16, channel] += attended[p // 64, p % 64]
        y = y + literal_leff(block, y)
        assert (out - y).abs().max() <= 1e-11 * y.abs().max()


def stages(net):
    encoder = [net.get_submodule(f'encoderlayer_{i}').blocks for i in range(4)]
    return [*encoder, net.bottle.blocks, *(net.get_submodule(f'decoderlayer_{i}').blocks for i in range(4))]


def test_each_stage_but_the_bottleneck_ends_with_a_spatial_block():
    with torch.device('meta'):
        net = IDT()
    kinds = [[type(block) for block in stage] for stage in stages(net)]
    counts = [3, 3, 2, 2, 1, 1, 2, 2, 3]
    assert kinds == [
        [WindowBlock] * n + [SpatialBlock] * (i != 4) for i, n in enumerate(counts)
    ]  # fmt: skip
    spatial = [stage[-1].attn for i, stage in enumerate(stages(net)) if i != 4]
    assert [attn.side for attn in spatial] == [16, 8, 4, 2, 2, 4, 8, 16]
    assert [attn.heads for attn in spatial] == [1, 2, 4, 8, 16, 8, 4, 2]
    assert [len(attn.relative_position_bias_table) for attn in spatial] == [961, 225, 49, 9, 9, 49, 225, 961]
    assert {stage[-1].mlp.linear1[0].out_features for i, stage in enumerate(stages(net)) if i != 4} == {256}


def test_the_rates_of_stochastic_depth_are_those_of_the_release():
    rates = [[block.drop_path.rate for block in stage] for stage in stages(small(depths=(3, 3, 2, 2, 1, 1, 2, 2, 3)))]
    steps = [0.1 * i / 9 for i in range(10)]  # of the ten numbers of the encoder; the decoder takes eight of them
    expected = [
        [steps[0]] * 3 + [steps[2]], [steps[3]] * 3 + [steps[5]], [steps[6]] * 2 + [steps[7]],
        [steps[8]] * 2 + [steps[9]], [0.1], [steps[9]] * 2, [steps[8]] * 2 + [steps[7]], [steps[6]] * 2 + [steps[5]],
        [steps[4]] * 3 + [steps[2]],
    ]  # fmt: skip
    assert list(chain(*rates)) == pytest.approx(list(chain(*expected)))


def test_a_network_in_training_draws_and_one_in_evaluation_does_not():
    net, x = small(drop_path_rate=0.5), torch.rand(2, 3, 64, 64)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_the_parameters_of_another_size_differ_in_four_convolutions():
    with torch.device('meta'):
        shapes, other = ({k: v.shape for k, v in IDT(img_size=size).state_dict().items()} for size in (128, 64))
    assert shapes.keys() == other.keys()
    assert {k: (shapes[k][-1], other[k][-1]) for k in shapes if shapes[k] != other[k]} == {
        'encoderlayer_2.blocks.2.attn.Position_Extract.0.weight': (5, 3),
        'encoderlayer_3.blocks.2.attn.Position_Extract.0.weight': (3, 1),
        'decoderlayer_0.blocks.1.attn.Position_Extract.0.weight': (3, 1),
        'decoderlayer_1.blocks.2.attn.Position_Extract.0.weight': (5, 3),
    }


def test_the_index_of_the_biases_is_not_saved():
    assert [k for k in small().state_dict() if 'index' in k] == []


def parameters_by_hand(dim, depths, heads):
    """The parameters of IDT at 128 x 128, counted from its description."""

    def attention(d, h, kernel, rows):
        return 5 * (d * d + d) + rows * h + (kernel**2 * d + d) + (d * d // h + d)

    def leff(c, hidden):
        return (c * hidden + hidden) + (9 * hidden + hidden) + (hidden * c + c)

    widths = [dim, 2 * dim, 4 * dim, 8 * dim, 16 * dim, 16 * dim, 8 * dim, 4 * dim, 2 * dim]
    total = 27 * dim + dim + 27 * 2 * dim + 3  # input and output
    for i, (n, c, h) in enumerate(zip(depths, widths, heads, strict=True)):
        total += n * (attention(c, h, 5, 225) + leff(c, 4 * c) + 4 * c)
        if i < 4:
            total += 16 * c * 2 * c + 2 * c  # down
        if i != 4:
            side = 2 ** (4 - min(i, 8 - i))  # 16, 8, 4, 2 windows, and back
            total += attention(64, h, 5 if side > 2 else 3, (2 * side - 1) ** 2) + leff(c, 256) + 2 * c
        if i > 4:
            total += 4 * widths[i - 1] * c // 2 + c // 2  # up
    return total


@pytest.mark.parametrize(
    ('dim', 'depths', 'total'),
    [(32, (3, 3, 2, 2, 1, 1, 2, 2, 3), 16_416_463), (16, (1,) * 9, None)],
)
def test_parameters_equal_a_count_by_hand(dim, depths, total):
    with torch.device('meta'):
        net = IDT(embed_dim=dim, depths=depths)
    count = sum(p.numel() for p in net.parameters())
    assert count == parameters_by_hand(dim, depths, (1, 2, 4, 8, 16, 16, 8, 4, 2))
    assert total in (None, count)


def test_every_parameter_learns_at_the_published_size():
    net = small(img_size=128, drop_path_rate=0.0)  # no branch left out
    net(torch.rand(1, 3, 128, 128)).square().mean().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_of_a_map_with_one_window_the_biases_cannot_learn():
    net = small(drop_path_rate=0.0)
    net(torch.rand(2, 3, 64, 64)).square().mean().backward()
    still = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    names = ('relative_position_bias_table', 'qkv.to_q.weight', 'qkv.to_q.bias')
    assert set(still) == {f'{s}layer_{i}.blocks.1.attn.{n}' for s, i in (('encoder', 3), ('decoder', 0)) for n in names}


def test_weights_begin_as_published():
    net = small()
    attn = net.bottle.blocks[0].attn
    assert attn.qkv.to_kv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert attn.relative_position_bias_table.std().item() == pytest.approx(0.02, rel=0.2)
    assert all(not m.bias.any() for m in net.modules() if isinstance(m, nn.Linear))


def test_the_network_adds_to_its_input():
    net = small()
    net.output_proj.proj[0].weight.data.zero_()
    net.output_proj.proj[0].bias.data.zero_()
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(net(x), x)


@pytest.mark.parametrize(('img_size', 'size'), [(128, (64, 64)), (128, (128, 256)), (64, (128, 128))])
def test_another_size_of_images_is_refused(img_size, size):
    with pytest.raises(ValueError, match=f'takes {img_size} x {img_size}, not {size[0]} x {size[1]}'):
        small(img_size=img_size)(torch.rand(1, 3, *size))


def test_the_size_is_that_of_the_constructor():
    assert (IDT.fixed_size, IDT.size_multiple) == (128, 128)
    net = small()
    assert (net.fixed_size, net.size_multiple) == (64, 64)


def test_a_size_of_twice_as_many_windows_clamps_their_distances():
    net, x = small(img_size=256).eval(), torch.rand(1, 3, 256, 256)
    assert net(x).shape == x.shape
    assert len(net.encoderlayer_0.blocks[-1].attn.relative_position_bias_table) == 961


def test_an_image_does_not_depend_on_its_neighbours_in_the_batch_or_on_earlier_ones():
    net = small().double().eval()
    x = torch.rand(3, 3, 64, 64, dtype=torch.float64)
    together = net(x)
    alone = net(x[1:2])
    assert (together[1:2] - alone).abs().max() <= 1e-12 * alone.abs().max()


def test_it_can_be_exported():
    net, x = small().eval(), torch.rand(1, 3, 64, 64)
    exported = torch.export.export(net, (x,)).module()
    assert (exported(x) - net(x)).abs().max() < 1e-6


def test_mixed_precision_is_close_and_its_gradients_finite():
    net, x = small().eval(), torch.rand(1, 3, 64, 64)
    with torch.autocast('cpu', torch.bfloat16):
        out = net(x)
    assert (out - net(x)).abs().max() < 0.02
    out.float().mean().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'img_size': 96}, 'img_size: 96 does not divide into windows'),
        ({'img_size': 192}, 'img_size: 192'),
        ({'img_size': 0}, 'img_size: 0'),
        ({'depths': (1, 1)}, 'depths: .* 2 entries; one for each of the 9'),
        ({'depths': (1, 1, 1, 0, 1, 1, 1, 1, 1)}, 'a stage without blocks'),
        ({'num_heads': (1, 2)}, 'num_heads: .* 2 entries'),
        ({'num_heads': (3, 1, 1, 1, 1, 1, 1, 1, 1)}, 'num_heads: 3 does not divide the 4 channels'),
        ({'embed_dim': 3, 'num_heads': (3, 1, 1, 1, 1, 1, 1, 1, 1)}, 'num_heads: 3 does not divide the 64 pixels'),
        ({'drop_path_rate': 1.0}, r'drop_path_rate: 1.0 is outside \[0, 1\)'),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(arguments, words):
    with pytest.raises(ValueError, match=words):
        small(**arguments)
