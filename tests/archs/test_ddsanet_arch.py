"""DDSANet against literal, slow twins of the paper's equations."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ddsa_arch.archs.blocks.attention import SpatialAttention
from ddsa_arch.archs.blocks.norm import ChannelLayerNorm
from ddsa_arch.archs.ddsanet_arch import (
    DDSA,
    SEFN,
    AblationGDFN,
    DDSANet,
    hidden_width,
    keep_top_k,
    top_k_per_row,
)

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def randomised(module, dtype):
    """Weights of every kind away from their initial values, so that each one matters."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3
    if getattr(module, 'temperature', None) is not None:
        module.temperature.data += 5.0
    return module.to(dtype)


def literal_maps(p, kept, mask_fill):
    """softmax(P) and softmax(M(P, k)) of a (d, d) matrix of scores, row by row."""
    maps = np.zeros((2, *p.shape))
    for i, row in enumerate(p):
        threshold = sorted(row, reverse=True)[kept - 1]
        dense = [math.exp(s - row.max()) for s in row]
        if mask_fill == 'exclude':
            sparse = [math.exp(s - row.max()) if s >= threshold else 0.0 for s in row]
        else:
            masked = [s if s >= threshold else 0.0 for s in row]
            sparse = [math.exp(s - max(masked)) for s in masked]
        maps[0, i] = [e / sum(dense) for e in dense]
        maps[1, i] = [e / sum(sparse) for e in sparse]
    return maps


def literal_ddsa(net, x, keep_ratio, attention, scale, mask_fill):
    """Equations (4) to (6), one number at a time where it matters."""
    batch, channels, height, width = x.shape
    heads, d = net.heads, channels // net.heads
    qkv = F.conv2d(x, net.to_qkv.weight)
    qkv = F.conv2d(qkv, net.encode_qkv.weight, padding=1, groups=3 * channels)
    out = torch.zeros_like(x)
    for b in range(batch):
        for h in range(heads):
            rows = [qkv[b, part * channels + h * d : part * channels + (h + 1) * d].reshape(d, -1) for part in range(3)]
            q, k, v = (r.detach().to(torch.float64).numpy() for r in rows)
            if scale == 'temperature':
                q = q / np.maximum(np.sqrt((q**2).sum(1, keepdims=True)), 1e-12)
                k = k / np.maximum(np.sqrt((k**2).sum(1, keepdims=True)), 1e-12)
                p = q @ k.T * net.temperature[h].item()
            else:
                p = q @ k.T / math.sqrt(d)
            weights = literal_maps(p, max(1, int(keep_ratio * d + 1e-9)), mask_fill)
            mix = net.branch_weights.tolist() if attention == 'dual' else [attention == 'dense', attention == 'sparse']
            branches = [m * (w @ v) for m, w in zip(mix, weights, strict=True)]  # two products, as (6) written out
            out[b, h * d : (h + 1) * d] = torch.from_numpy(sum(branches)).view(d, height, width).to(x.dtype)
    return F.conv2d(out, net.project_out.weight)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('keep_ratio', [0.1, 0.7, 1.0])
@pytest.mark.parametrize('scale', ['temperature', 'sqrt_d'])
@pytest.mark.parametrize('mask_fill', ['exclude', 'zero'])
@pytest.mark.parametrize(('dim', 'heads'), [(7, 1), (10, 2), (15, 3)])
def test_ddsa_equals_the_equations_of_the_paper(dim, heads, mask_fill, scale, keep_ratio, dtype):
    net = randomised(DDSA(dim, heads, keep_ratio, 'dual', scale, mask_fill), dtype)
    x = torch.randn(2, dim, 5, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    expected = literal_ddsa(net, x, keep_ratio, 'dual', scale, mask_fill)
    for layout in (torch.contiguous_format, torch.channels_last):
        difference = (net(x.contiguous(memory_format=layout)) - expected).abs().max().item()
        assert difference <= TOLERANCE[dtype] * max(1.0, expected.abs().max().item())


@pytest.mark.parametrize('attention', ['dense', 'sparse'])
def test_a_single_branch_of_table_3_is_that_branch_without_a_weight(attention):
    net = randomised(DDSA(8, 2, 0.5, attention), torch.float64)
    x = torch.randn(1, 8, 4, 6, dtype=torch.float64)
    expected = literal_ddsa(net, x, 0.5, attention, 'temperature', 'exclude')
    assert (net(x) - expected).abs().max() <= 1e-10
    assert net.branch_weights is None


def test_scores_that_tie_with_the_threshold_are_all_kept():
    scores = torch.tensor([[[[3.0, 1.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0]]]])
    kept = keep_top_k(scores, 2, 0.0)
    assert kept.tolist() == [[[[3.0, 0.0, 2.0, 2.0, 2.0], [0.0] * 5]]]
    assert keep_top_k(scores, 2, -math.inf)[0, 0, 0].tolist() == [3.0, -math.inf, 2.0, 2.0, 2.0]


@pytest.mark.core
@pytest.mark.parametrize('mask_fill', ['exclude', 'zero'])
def test_ties_in_the_scores_follow_the_equations(mask_fill):
    net = randomised(DDSA(6, 1, 0.5, mask_fill=mask_fill), torch.float64)  # k = 3
    rows = [[2, 1, 1, 1, 0, -1], [1] * 6, [0, 0, 0, -1, -1, 5], [-2, -2, -2, -2, -3, -1], [3, 3, 3, 3, 1, 1]]
    p = np.array([*rows, rows[-1]])
    dense, sparse = literal_maps(p.astype(float), 3, mask_fill)
    w0, w1 = net.branch_weights.tolist()
    expected = torch.from_numpy(w0 * dense + w1 * sparse)
    assert (net.attention_map(torch.from_numpy(p).double()[None, None])[0, 0] - expected).abs().max() <= 1e-12


@pytest.mark.parametrize(
    ('ratio', 'width', 'k'), [(0.7, 48, 33), (0.7, 1, 1), (0.1, 5, 1), (1.0, 9, 9), (0.7, 10, 7), (0.29, 100, 29)]
)
def test_k_is_the_floor_of_the_share_of_a_row_and_at_least_one(ratio, width, k):
    assert top_k_per_row(ratio, width) == k


def test_both_branches_share_one_product_with_v(monkeypatch):
    shapes = []
    original = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, '__matmul__', lambda a, b: shapes.append(b.shape) or original(a, b))
    DDSA(8, 2)(torch.rand(1, 8, 5, 5))
    assert len(shapes) == 2  # Q K^T and the one product with V


def literal_spatial_attention(module, y):
    pooled = torch.stack([y.mean(1), y.amax(1)], 1)
    return y * torch.sigmoid(F.conv2d(pooled, module.conv.weight, padding=3))


def literal_sefn(net, x, spatial_attention):
    y = F.conv2d(x, net.expand.weight)
    y = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))  # GELU
    part = y.shape[1] // 3
    x1, x2, x3 = y[:, :part], y[:, part : 2 * part], y[:, 2 * part :]
    y2 = F.conv2d(x2, net.depthwise2.weight, padding=1, groups=part)
    y3 = F.conv2d(x3 + y2, net.depthwise3.weight, padding=1, groups=part)
    y = torch.cat([x1, y2, y3], 1)
    if spatial_attention:
        y = literal_spatial_attention(net.spatial_attention, y)
    return F.conv2d(y, net.project_out.weight)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('spatial_attention', [True, False])
@pytest.mark.parametrize('dim', [7, 16])
def test_sefn_equals_its_definition(dim, spatial_attention, dtype):
    net = randomised(SEFN(dim, spatial_attention=spatial_attention), dtype)
    x = torch.randn(2, dim, 6, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)
    expected = literal_sefn(net, x, spatial_attention)
    difference = (net(x) - expected).abs().max().item()
    assert difference <= TOLERANCE[dtype] * max(1.0, expected.abs().max().item())


def test_gdfn_equals_its_definition():
    net = randomised(AblationGDFN(8, spatial_attention=True), torch.float64)
    x = torch.randn(1, 8, 6, 5, dtype=torch.float64)
    hidden = net.project_out.weight.shape[1]
    y = F.conv2d(F.conv2d(x, net.expand.weight), net.depthwise.weight, padding=1, groups=2 * hidden)
    a, b = y[:, :hidden], y[:, hidden:]
    y = a * 0.5 * (1 + torch.erf(a / math.sqrt(2))) * b
    expected = F.conv2d(literal_spatial_attention(net.spatial_attention, y), net.project_out.weight)
    assert (net(x) - expected).abs().max() <= 1e-10


def test_spatial_attention_passes_gradients_to_the_largest_channel():
    net = SpatialAttention().double()
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, (x,))


@pytest.mark.parametrize(('dim', 'width'), [(48, 120), (16, 48), (24, 72), (4, 24), (96, 264)])
def test_the_hidden_width_is_the_nearest_multiple_of_24(dim, width):
    assert hidden_width(dim, 2.66) == width


@pytest.mark.parametrize('bias', [True, False])
def test_layer_norm_equals_its_definition(bias):
    net = randomised(ChannelLayerNorm(5, bias), torch.float64)
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    mean = x.mean(1, keepdim=True)
    variance = ((x - mean) ** 2).mean(1, keepdim=True)
    weight = net.weight.view(1, -1, 1, 1)
    expected = (x - mean if bias else x) / torch.sqrt(variance + 1e-5) * weight
    if bias:
        expected = expected + net.bias.view(1, -1, 1, 1)
    assert (net(x) - expected).abs().max() <= 1e-12


def tiny(**changes):
    torch.manual_seed(0)
    return DDSANet(**({'dim': 8, 'blocks': (1, 1, 1, 1, 1)} | changes))


def test_the_network_adds_a_residual_to_its_input():
    net = tiny()
    net.output.weight.data.zero_()
    x = torch.rand(1, 3, 16, 24)
    assert torch.equal(net(x), x)


def test_the_levels_have_the_channels_and_resolutions_of_the_design():
    net, seen = tiny(), {}
    for name in [f'encoder{i}' for i in range(4)] + ['level4'] + [f'decoder{i}' for i in range(4)]:
        getattr(net, name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: tuple(o.shape[1:])}))
    net(torch.rand(1, 3, 32, 48))
    assert seen == {
        'encoder0': (8, 32, 48), 'encoder1': (8, 32, 48), 'encoder2': (16, 16, 24), 'encoder3': (32, 8, 12),
        'level4': (64, 4, 6), 'decoder3': (32, 8, 12), 'decoder2': (16, 16, 24), 'decoder1': (16, 32, 48),
        'decoder0': (16, 32, 48),
    }  # fmt: skip


@pytest.mark.core
def test_the_papers_network_has_the_papers_blocks_and_heads():
    with torch.device('meta'):
        net = DDSANet()
    levels = [net.encoder0, net.encoder1, net.encoder2, net.encoder3, net.level4]
    assert [len(level) for level in levels] == [2, 4, 6, 6, 8]
    assert [level[0].attention.heads for level in levels] == [1, 1, 2, 4, 8]
    assert [level[0].attention.k for level in levels] == [33] * 5  # floor(0.7 * 48) of heads that are 48 wide
    assert [len(level) for level in (net.decoder3, net.decoder2, net.decoder1, net.decoder0)] == [6, 6, 4, 2]
    assert sum(p.numel() for p in net.parameters()) == 21_001_236


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'attention': 'sparce'}, "attention: 'sparce'"),
        ({'scale': 'sqrt'}, "scale: 'sqrt'"),
        ({'mask_fill': 0}, 'mask_fill: 0'),
        ({'ffn': 'mlp'}, "ffn: 'mlp'"),
        ({'keep_ratio': 1.5}, r'keep_ratio: 1.5 is outside \(0, 1\]'),
        ({'keep_ratio': 0}, 'keep_ratio: 0'),
        ({'blocks': (1, 1)}, 'one for each of the levels'),
        ({'heads': (1, 3, 1, 1, 1)}, 'not a multiple of heads 3; try dim 9'),
        ({'dim': 7, 'heads': (1, 1, 1, 1, 1)}, 'try 8'),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(arguments, words):
    with pytest.raises(ValueError, match=words):
        tiny(**arguments)
