"""Size and cost, against the published code's own counts and against arithmetic."""

from pathlib import Path

import pytest
import torch
import yaml
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from ddsa_arch.archs.complexity import complexity, count_operations

SMALL = yaml.safe_load((Path(__file__).parents[1] / 'small_networks.yml').read_text(encoding='utf-8'))
NETWORKS = sorted({name for name, part in ARCH_REGISTRY if hasattr(part, 'size_multiple')} | set(SMALL))


class OneConvolution(nn.Module):
    def __init__(self, **size):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        for name, value in size.items():
            setattr(self, name, value)

    def forward(self, x):
        return [x, self.conv(x)]


class Attention(nn.Module):
    """Of N tokens of width 4: projected N * 12 * 4, multiplied N * N * 4 twice."""

    def __init__(self, fused):
        super().__init__()
        self.fused = fused
        self.qkv = nn.Linear(4, 12)

    def forward(self, x):
        q, k, v = self.qkv(x[:, :1].flatten(2).unflatten(2, (-1, 4))).chunk(3, dim=-1)
        if self.fused:
            return nn.functional.scaled_dot_product_attention(q, k, v)
        return (q @ k.transpose(-2, -1)).softmax(-1) @ v


def test_a_convolution_costs_what_arithmetic_says():
    counted = complexity(OneConvolution().train(), 10, 20)
    assert (counted.parameters, counted.outputs) == (84, 2)
    assert (counted.weighed_macs, counted.feature_macs) == (10 * 20 * 3 * 3 * 9, 0)
    assert counted.macs == counted.weighed_macs


@pytest.mark.parametrize('fused', [True, False])
def test_attention_is_counted_apart(fused):
    counted = complexity(Attention(fused), 8, 8)  # 16 tokens
    assert (counted.weighed_macs, counted.feature_macs) == (16 * 12 * 4, 2 * 16 * 16 * 4)


def test_tiles_of_a_network_of_one_size_add_up():
    assert complexity(OneConvolution(fixed_size=8), 20, 16).weighed_macs == 6 * 64 * 81


# --- every operation, from one run -------------------------------------------------------------------------


class Calls(nn.Module):
    """A function of the image, with layers that it may use."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)


def counted(function, **layers):
    """Of an image of 1 x 3 x 4 x 6."""
    return count_operations(Calls(function, **layers), torch.rand(1, 3, 4, 6))


def figures(operations):
    return (operations.conv_macs, operations.linear_macs, operations.product_macs, operations.other_flops,
            operations.activations)  # fmt: skip


@pytest.mark.parametrize(
    ('layer', 'macs', 'outputs'),
    [
        (nn.Conv2d(3, 5, 3, padding=1), 4 * 6 * 5 * 3 * 9, 4 * 6 * 5),
        (nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False), 2 * 3 * 5 * 3 * 9, 2 * 3 * 5),
        (nn.Conv2d(3, 6, 3, padding=1, groups=3), 4 * 6 * 6 * 9, 4 * 6 * 6),
        (nn.Conv2d(3, 3, 3, padding=2, dilation=2), 4 * 6 * 3 * 3 * 9, 4 * 6 * 3),
        (nn.ConvTranspose2d(3, 5, 2, stride=2), 4 * 6 * 3 * 5 * 4, 8 * 12 * 5),
    ],
)
def test_convolutions_cost_what_arithmetic_says(layer, macs, outputs):
    assert figures(counted(lambda net, x: net.layer(x), layer=layer)) == (macs, 0, 0, 0, outputs)


def test_a_linear_layer_is_no_product_of_features():
    operations = counted(lambda net, x: net.layer(x), layer=nn.Linear(6, 7))
    assert figures(operations) == (0, 12 * 6 * 7, 0, 0, 12 * 7)
    assert (operations.weighed_macs, operations.macs, operations.flops) == (504, 504, 1008)


@pytest.mark.parametrize(
    ('function', 'macs', 'outputs'),
    [
        (lambda net, x: x @ x.transpose(-2, -1), 3 * 4 * 6 * 4, 3 * 4 * 4),
        (lambda net, x: x[0, 0] @ x.transpose(-2, -1), 3 * 4 * 6 * 4, 3 * 4 * 4),  # the first is broadcast
        (lambda net, x: x @ x[0, 0, 0], 12 * 6, 12),
        (lambda net, x: torch.bmm(x[0], x[0].transpose(1, 2)), 3 * 4 * 6 * 4, 3 * 4 * 4),
        (lambda net, x: torch.einsum('bchw,bchv->bcwv', x, x), 3 * 4 * 6 * 6, 3 * 6 * 6),
        (lambda net, x: torch.einsum('bchw,bdhw->bcd', x, x), 9 * 4 * 6, 9),
    ],
)
def test_products_cost_one_multiply_add_for_each_term(function, macs, outputs):
    assert figures(counted(function)) == (0, 0, macs, 0, outputs)


def test_a_long_einsum_is_not_rounded():
    """mmengine's own handle reads numpy's four digits."""
    x = torch.rand(1, 3, 37, 41)
    operations = count_operations(Calls(lambda net, x: torch.einsum('bchw,bchv->bcwv', x, x)), x)
    assert operations.product_macs == 3 * 37 * 41 * 41 == 186_591


def test_fused_attention_costs_as_much_as_the_formula_written_out():
    """Of N = 4 queries and M = 6 keys of width d = 4 in 3 heads; the scores are scaled by 1 / sqrt(d) in both."""

    def fused(net, x):
        return nn.functional.scaled_dot_product_attention(x[..., :4], x.mT[..., :4], x.mT)

    def written_out(net, x):
        return (x[..., :4] @ x.mT[..., :4].mT).softmax(-1) @ x.mT

    macs = 3 * (4 * 6 * 4 + 4 * 6 * 4)
    assert figures(counted(fused)) == (0, 0, macs, 4 * 3 * 24, 3 * (24 + 16))
    assert figures(counted(written_out)) == figures(counted(fused))


@pytest.mark.parametrize(
    ('function', 'flops'),
    [
        (lambda net, x: x * x + 1, 2 * 72),
        (lambda net, x: nn.functional.gelu(x).sigmoid(), 2 * 72),
        (lambda net, x: x.relu_(), 72),
        (lambda net, x: x.mean((2, 3)), 72),
        (lambda net, x: nn.functional.avg_pool2d(x, 2), 72),
        (lambda net, x: x.softmax(1), 4 * 72),
        (lambda net, x: nn.functional.layer_norm(x, (6,)), 4 * 72),
        (lambda net, x: nn.functional.layer_norm(x, (6,), torch.ones(6), torch.ones(6)), 5 * 72),
        (lambda net, x: nn.functional.interpolate(x, scale_factor=2, mode='bilinear'), 4 * 4 * 72),
        (lambda net, x: x.flip(-1).permute(0, 2, 3, 1).reshape(-1)[: x.shape[2] * x.shape[3]], 0),
        (lambda net, x: torch.where(x > x.roll(1, 2), x, x.amax()), 0),
    ],
)
def test_what_is_no_product_costs_by_the_element(function, flops):
    operations = counted(function)
    assert figures(operations) == (0, 0, 0, flops, 0)
    assert operations.uncounted == ()
    assert operations.flops == flops


def test_batch_norm_costs_two_for_an_element():
    assert counted(lambda net, x: net.norm(x), norm=nn.BatchNorm2d(3)).other_flops == 2 * 72


def test_operators_that_nobody_knows_are_named():
    assert counted(lambda net, x: torch.fft.fft2(x).real.erfinv()).uncounted[0] == 'aten::erfinv'


def test_a_count_leaves_the_network_as_it_was():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    count_operations(net, torch.rand(1, 3, 8, 8))
    assert net.training
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


@pytest.mark.parametrize(
    'name',
    [pytest.param(n, marks=() if n in ('DDSANet', 'DGUNet', 'UMRL', 'PRN_r') else pytest.mark.slow) for n in NETWORKS],
)
def test_both_counters_agree_on_every_network(name):
    """torch's sees what runs on tensors without values, mmengine's what torch.jit traces in a real run."""
    net = ARCH_REGISTRY.get(name)(**SMALL.get(name, {}))
    size = getattr(net, 'fixed_size', None) or 64
    of_torch = complexity(net, size, size)
    operations = count_operations(net, torch.rand(1, 3, size, size))
    assert (operations.weighed_macs, operations.product_macs) == (of_torch.weighed_macs, of_torch.feature_macs)
    assert operations.uncounted == ()
    assert operations.activations > 3 * size * size
    assert operations.other_flops > 0
