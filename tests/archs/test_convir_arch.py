"""ConvIR against the outputs of the published network, and its dynamic filters against loops over all pixels."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ddsa_arch.archs.convir_arch import ConvIR, DynamicFilter, MultiScaleBranch, StripAttention, reflect

GROUPS = 8
NAMES = ('quarter', 'half', 'full')


@pytest.mark.slow
@pytest.mark.parametrize('size', ['1x3x128x128', '1x3x128x160'])
def test_the_published_outputs_are_reached(golden, size):
    file = golden('convir')
    run = file.spec['runs']['gain0p7']
    run['outputs'] = {size: run['outputs'][size]}
    file.check(ConvIR(), lambda net, x: dict(zip(NAMES, net(x), strict=True)), run='gain0p7')


@pytest.mark.parametrize(('num_res', 'parameters'), [(4, 5_530_505), (8, 8_630_665), (16, 14_830_985)])
def test_parameters_are_the_published_ones(num_res, parameters):
    with torch.device('meta'):
        assert sum(p.numel() for p in ConvIR(num_res).parameters()) == parameters


def drawn(module):
    """The module in float64 and for inference, with weights and statistics of its own."""
    torch.manual_seed(0)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.normal_(std=0.5)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_var.abs_().add_(0.5)
    return module.double().eval()


def mirrored(place, size):
    """The pixel that reflection about the first and the last one puts at a place beyond them."""
    while not 0 <= place < size:
        place = -place if place < 0 else 2 * (size - 1) - place
    return place


def filtered(net, x, rows, columns, dilation, inside_mean):
    """A dynamic filter by loops over channels, pixels and taps, from its published names alone."""
    c, h, w = x.shape[1:]
    raw = net.conv.weight[:, :, 0, 0] @ x[0].mean((1, 2))
    if rows * columns == 9:
        bn = net.bn
        raw = (raw - bn.running_mean) / (bn.running_var + 1e-5) ** 0.5 * bn.weight + bn.bias
    filters = torch.tanh(raw)
    out = torch.empty_like(x)
    for k in range(c):
        group = k // (c // GROUPS)
        for i in range(h):
            for j in range(w):
                low = 0
                for a in range(rows):
                    for b in range(columns):
                        y = mirrored(i + dilation * (a - rows // 2), h)
                        z = mirrored(j + dilation * (b - columns // 2), w)
                        low += filters[group * rows * columns + a * columns + b] * x[0, k, y, z]
                inside = net.inside_all[k, 0, 0]
                low = (1 + inside) * low - inside * inside_mean(x[0, k], i, j)
                out[0, k, i, j] = net.lamb_l[k] * low + (1 + net.lamb_h[k]) * x[0, k, i, j]
    return out


SQUARE = (3, 3, lambda pixels, i, j: pixels.mean())
HORIZONTAL = (1, 3, lambda pixels, i, j: pixels[i].mean())
VERTICAL = (3, 1, lambda pixels, i, j: pixels[:, j].mean())


@torch.no_grad()
@pytest.mark.parametrize(('rows', 'columns', 'mean'), [SQUARE, HORIZONTAL, VERTICAL], ids=['3x3', '1x3', '3x1'])
@pytest.mark.parametrize('dilation', [1, 3, 7])  # the last beyond the map, where reflections go back and forth
def test_a_dynamic_filter_is_its_equations_tap_by_tap(rows, columns, mean, dilation):
    net = drawn(DynamicFilter(16, (rows, columns), dilation, normalised=rows * columns == 9))
    x = torch.randn(1, 16, 5, 4, dtype=torch.float64)
    assert (net(x) - filtered(net, x, rows, columns, dilation, mean)).abs().max() < 1e-12


@torch.no_grad()
def test_strips_are_filtered_along_the_width_and_then_along_the_height():
    net = drawn(StripAttention(8, 2))
    x = torch.randn(1, 8, 5, 4, dtype=torch.float64)
    rows, columns, mean = HORIZONTAL
    first = filtered(net.H_spatial_att, x, rows, columns, 2, mean)
    rows, columns, mean = VERTICAL
    second = filtered(net.W_spatial_att, first, rows, columns, 2, mean)
    assert (net(x) - (net.gamma * second + net.beta * x)).abs().max() < 1e-12


@torch.no_grad()
def test_the_branch_goes_from_coarse_to_fine():
    net = drawn(MultiScaleBranch(8, (1, 1, 1)))
    x = torch.randn(1, 8, 16, 24, dtype=torch.float64)

    def up(small, size):
        return F.interpolate(small, size, mode='bilinear', align_corners=True)

    pooled = [x.unflatten(2, (-1, n)).unflatten(4, (-1, n)).mean((3, 5)) for n in (8, 4, 2)]
    coarse = net.dynas[0](net.convs[0](pooled[0]))
    middle = net.dynas[1](net.convs[1](pooled[1] + up(coarse, (4, 6))))
    fine = net.dynas[2](net.convs[2](pooled[2] + up(middle, (8, 12))))
    total = x + sum(up(y, (16, 24)) for y in (coarse, middle, fine))
    assert (net(x) - net.conv_sum(F.gelu(total))).abs().max() < 1e-12


def test_reflection_is_that_of_torch_where_torch_reflects():
    x = torch.rand(1, 2, 5, 8)
    assert torch.equal(reflect(x, 4, -2), F.pad(x, (0, 0, 4, 4), mode='reflect'))
    assert torch.equal(reflect(x, 7, -1), F.pad(x, (7, 7, 0, 0), mode='reflect'))
    assert torch.equal(reflect(x[..., :1], 3, -1), x[..., :1].expand(1, 2, 5, 7))


def test_outputs_are_the_smaller_images_first():
    net = ConvIR(num_res=1, width=8).eval()
    for parameter in [*net.ConvsOut.parameters(), *net.feat_extract[5].parameters()]:
        nn.init.zeros_(parameter)
    x = torch.rand(1, 3, 32, 64)
    quarter, half, full = net(x)
    assert torch.equal(full, x)
    assert torch.equal(half, x[..., ::2, ::2])
    assert torch.equal(quarter, x[..., ::4, ::4])


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'width': 20}, 'width: 20 is not a multiple of 8; try 16'),
        ({'width': 0}, 'width: 0 is not a multiple of 8; try 8'),
        ({'num_res': 0}, 'num_res: 0, wanted at least 1 block'),
        ({'dilations': [3, 7]}, r'dilations: \[3, 7\], wanted 3 whole numbers above 0'),
        ({'dilations': [3, 7, 0]}, r'dilations: \[3, 7, 0\], wanted 3 whole numbers above 0'),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(arguments, words):
    with pytest.raises(ValueError, match=words):
        ConvIR(**arguments)
