"""The fast form of the attention that all of the family share, against the paper's."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from helpers import normal
from torch import nn

from ddsa_arch.archs.ddsanet_arch import DDSA, SEFN
from ddsa_arch.archs.drsformer_arch import TKSA
from ddsa_arch.fast import accelerate
from ddsa_arch.fast.attention import channel_scores, pixel_norm, project_attended

LAYOUTS = (torch.contiguous_format, torch.channels_last)
FAMILY = {
    'DDSANet': {'dim': 8, 'blocks': [1, 1, 1, 1, 1]},
    'DDSANet, sqrt_d': {
        'dim': 6, 'blocks': [1, 1, 1, 1, 1], 'heads': [1, 2, 3, 6, 4], 'scale': 'sqrt_d', 'attention': 'dense',
    },
    'Restormer': {'dim': 8, 'num_blocks': [1, 1, 1, 1], 'num_refinement_blocks': 1},
    'DRSformer': {'dim': 16, 'num_blocks': [1, 1, 1, 1]},
    'ELF': {'width': 12, 'depth': 1, 'reduction': 1},
}  # fmt: skip
noise = partial(normal, dtype=torch.float64)


def projection(channels, out, bias=True, dtype=torch.float64):
    conv = nn.Conv2d(channels, out, 1, bias=bias)
    conv.weight.data = noise(out, channels, 1, 1, seed=8)
    if bias:
        conv.bias.data = noise(out, seed=9)
    return conv.to(dtype)


@pytest.mark.parametrize('build', [lambda: DDSA(8, 2), lambda: TKSA(8, 2)], ids=['DDSA', 'TKSA'])
def test_all_branches_share_one_product_with_v(build, monkeypatch):
    net = build()
    accelerate(net)
    shapes = []
    original = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, '__matmul__', lambda a, b: shapes.append(b.shape) or original(a, b))
    net(torch.rand(1, 8, 5, 5))
    assert len(shapes) == 2  # q k^T and the one product with v


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
    net = ARCH_REGISTRY.get(name.split(',')[0])(**FAMILY[name]).double().to(memory_format=layout)
    rain = torch.rand(2, 3, 16, 32, dtype=torch.float64).to(memory_format=layout)
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
