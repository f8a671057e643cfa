"""The attention that all of the family share: its fast form, the paper's and a twin in plain loops."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from ddsa_arch.archs.blocks.transposed_attention import MDTA
from ddsa_arch.archs.ddsanet_arch import DDSA, SEFN
from ddsa_arch.archs.drsformer_arch import TKSA
from ddsa_arch.fast import accelerate
from ddsa_arch.fast.attention import channel_scores, pixel_norm, project_attended

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
LAYOUTS = (torch.contiguous_format, torch.channels_last)
FAMILY = {
    'DDSANet': {'dim': 8, 'blocks': [1, 1, 1, 1, 1]},
    'Restormer': {'dim': 8, 'num_blocks': [1, 1, 1, 1], 'num_refinement_blocks': 1},
    'DRSformer': {'dim': 16, 'num_blocks': [1, 1, 1, 1]},
    'ELF': {'width': 12, 'depth': 1, 'reduction': 1},
}


def noise(*shape, dtype=torch.float64, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def projection(channels, out, bias=True, dtype=torch.float64):
    conv = nn.Conv2d(channels, out, 1, bias=bias)
    conv.weight.data = noise(out, channels, 1, 1, seed=8)
    if bias:
        conv.bias.data = noise(out, seed=9)
    return conv.to(dtype)


def identity(channels):
    conv = nn.Conv2d(channels, channels, 1, bias=False)
    conv.weight.data = torch.eye(channels, dtype=torch.float64)[..., None, None]
    return conv


def literal_attention(q, k, v, heads, temperature):
    """One number at a time where it matters; (B, C, H, W) each."""
    batch, channels, height, width = q.shape
    d = channels // heads
    out = np.zeros((batch, channels, height * width))
    for b in range(batch):
        for head in range(heads):
            rows = slice(head * d, (head + 1) * d)
            qs, ks, vs = (t[b, rows].detach().double().reshape(d, -1).numpy() for t in (q, k, v))
            for i in range(d):
                scores = []
                for j in range(d):
                    product = sum(qs[i] * ks[j])
                    if temperature is None:
                        scores.append(product / math.sqrt(d))
                        continue
                    norms = max(math.sqrt(sum(qs[i] ** 2)), 1e-12) * max(math.sqrt(sum(ks[j] ** 2)), 1e-12)
                    scores.append(product / norms * temperature[head].item())
                exponentials = [math.exp(s) for s in scores]
                for j in range(d):
                    out[b, head * d + i] += exponentials[j] / sum(exponentials) * vs[j]
    return torch.from_numpy(out).view(q.shape)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('scaled', ['temperature', 'sqrt_d'])
@pytest.mark.parametrize(('dim', 'heads'), [(5, 1), (8, 2), (6, 3), (6, 6)])
@pytest.mark.parametrize('bias', [True, False])
def test_the_papers_form_and_the_fast_one_equal_the_twin(dim, heads, bias, scaled, dtype):
    net = DDSA(dim, heads, attention='dense', scale=scaled, bias=bias)
    for place, parameter in enumerate(net.parameters()):
        parameter.data = noise(*parameter.shape, seed=10 + place) * 0.3
    if net.temperature is not None:
        net.temperature.data += 3
    net.to(dtype)
    x = noise(2, dim, 5, 7, dtype=dtype)
    with torch.no_grad():
        q, k, v = net.encode_qkv(net.to_qkv(x)).chunk(3, dim=1)
    attended = literal_attention(q, k, v, heads, net.temperature)
    expected = F.conv2d(attended, net.project_out.weight.double(), None if not bias else net.project_out.bias.double())
    for layout in LAYOUTS:
        given = x.contiguous(memory_format=layout)
        plain = net(given)
        assert accelerate(net)
        for found in (plain, net(given)):
            assert (found - expected).abs().max() <= TOLERANCE[dtype] * max(1, expected.abs().max())


@pytest.mark.parametrize('build', [lambda: DDSA(8, 2), lambda: TKSA(8, 2)], ids=['DDSA', 'TKSA'])
def test_all_branches_share_one_product_with_v(build, monkeypatch):
    net = build()
    accelerate(net)
    shapes = []
    original = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, '__matmul__', lambda a, b: shapes.append(b.shape) or original(a, b))
    net(torch.rand(1, 8, 5, 5))
    assert len(shapes) == 2  # q k^T and the one product with v


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize(('dim', 'heads'), [(5, 1), (8, 2), (6, 3)])
def test_mdta_equals_its_equations(dim, heads, dtype):
    net = MDTA(dim, heads)
    for place, parameter in enumerate(net.parameters()):
        parameter.data = noise(*parameter.shape, seed=10 + place) * 0.3
    net.temperature.data += 5  # so that the softmax is not flat
    net.to(dtype)
    x = noise(2, dim, 5, 7, dtype=dtype)
    qkv = F.conv2d(F.conv2d(x, net.qkv.weight), net.qkv_dwconv.weight, padding=1, groups=3 * dim)
    q, k, v = qkv[:, :dim], qkv[:, dim : 2 * dim], qkv[:, 2 * dim :]
    expected = F.conv2d(literal_attention(q, k, v, heads, net.temperature).to(dtype), net.project_out.weight)
    for layout in LAYOUTS:
        for _ in range(2):
            difference = (net(x.contiguous(memory_format=layout)) - expected).abs().max().item()
            assert difference <= TOLERANCE[dtype] * max(1.0, expected.abs().max().item())
            accelerate(net)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_spatial_attention_may_be_multiplied_in_behind_the_projection(bias, layout):
    net = SEFN(9, bias=bias).double()
    x = noise(2, 9, 8, 6).contiguous(memory_format=layout)
    x1, x2, x3 = F.gelu(net.expand(x)).chunk(3, dim=1)
    y2 = net.depthwise2(x2)
    y = torch.cat([x1, y2, net.depthwise3(x3 + y2)], dim=1)
    weights = torch.sigmoid(net.spatial_attention.conv(torch.stack([y.mean(1), y.amax(1)], dim=1)))
    expected = net.project_out(y * weights)
    assert (net(x) - expected).abs().max() <= 1e-12
    accelerate(net)
    assert (net(x) - expected).abs().max() <= 1e-12


@pytest.mark.parametrize('name', FAMILY)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_network_and_its_fast_form_give_one_output_and_one_gradient(name, layout):
    torch.manual_seed(0)
    net = ARCH_REGISTRY.get(name)(**FAMILY[name]).double().to(memory_format=layout)
    rain = torch.rand(2, 3, 32, 48, dtype=torch.float64).to(memory_format=layout)
    results = []
    for fast in (False, True):
        if fast:
            assert accelerate(net)
        net.zero_grad()
        x = rain.clone().requires_grad_()
        out = net(x)
        out = out if isinstance(out, torch.Tensor) else out[-1]
        (out * noise(*out.shape, seed=5)).sum().backward()
        results.append([out.detach(), x.grad, *(p.grad.clone() for p in net.parameters() if p.grad is not None)])
    for plain, fast in zip(*results, strict=True):
        assert (fast - plain).abs().max() <= 1e-10 * max(1, plain.abs().max())


def test_a_channel_of_zeros_gives_scores_of_zero_and_finite_gradients():
    q = noise(1, 1, 12, 3)
    q[..., 1] = 0
    q.requires_grad_()
    scores = channel_scores(q, q, torch.ones(1, 1, 1))
    scores.sum().backward()
    assert scores[0, 0, 1].tolist() == scores[0, 0, :, 1].tolist() == [0, 0, 0]
    assert q.grad.isfinite().all()


def test_the_norm_over_many_pixels_is_as_exact_as_float32_can_be():
    x = noise(1, 512 * 512, 9, dtype=torch.float32)[..., :3]  # a slice of a wider tensor, as queries are
    exact = torch.linalg.vector_norm(x.double(), dim=-2, keepdim=True)
    assert ((pixel_norm(x) - exact) / exact).abs().max() < 5e-7


def test_scores_and_the_folded_matrix_stay_in_float32_under_autocast():
    q, k = (noise(1, 2, 300, 4, seed=seed).bfloat16() for seed in (1, 2))
    temperature = torch.full((2, 1, 1), 2.0)
    with torch.autocast('cpu', torch.bfloat16):
        scores = channel_scores(q, k, temperature)
    expected = channel_scores(q.double(), k.double(), temperature.double())
    assert scores.dtype == torch.float32
    assert (scores - expected).abs().max() <= 1e-6
    v = noise(1, 8, 6, 5, seed=3)
    project = projection(8, 8)
    attention = noise(1, 2, 4, 4, seed=4).softmax(-1)
    exact = project_attended(v, attention, project)
    with torch.autocast('cpu', torch.bfloat16):
        out = project_attended(v.bfloat16(), attention.float(), project.float())
    assert out.dtype == torch.bfloat16
    assert (out - exact).abs().max() <= 0.02 * exact.abs().max()  # one rounding to 8 bits of v, matrix and result
