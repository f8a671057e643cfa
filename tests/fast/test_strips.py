"""Inference strip by strip: the numbers of the whole image, in less memory."""

import copy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from helpers import normal
from torch import nn

from ddsa_arch.archs.blocks.transposed_attention import TransformerBlock
from ddsa_arch.archs.ddsanet_arch import DATB
from ddsa_arch.archs.drsformer_arch import DilatedConv
from ddsa_arch.fast import accelerate
from ddsa_arch.fast.blocks import run_blocks
from ddsa_arch.fast.convolutions import aligned, channel_groups, conv, conv_add_, conv_times, fused_type
from ddsa_arch.fast.strips import StripPlan, embed, fuse, join, strips, through, with_room
from ddsa_arch.models.restore import final_output

LAYOUTS = (torch.contiguous_format, torch.channels_last)
ONE_EACH = [1, 1, 1, 1]
NETWORKS = {
    'DDSANet': {'dim': 8, 'blocks': [1, 1, 2, 1, 1]},
    'DDSANet, biases': {'dim': 8, 'blocks': [1, 1, 1, 1, 1], 'bias': True, 'attention': 'sparse', 'norm_bias': False},
    'DDSANet, MSFN': {'dim': 8, 'blocks': [1, 1, 1, 1, 1], 'spatial_attention': False, 'bias': True},
    'DDSANet, GDFN': {'dim': 8, 'blocks': [1, 1, 1, 1, 1], 'ffn': 'gdfn', 'bias': True},
    'Restormer': {'dim': 8, 'num_blocks': ONE_EACH, 'num_refinement_blocks': 2},
    'Restormer, biases': {
        'dim': 6, 'num_blocks': ONE_EACH, 'heads': ONE_EACH, 'num_refinement_blocks': 1, 'bias': True,
        'LayerNorm_type': 'BiasFree', 'dual_pixel_task': True,
    },
    'DRSformer': {'dim': 16, 'num_blocks': ONE_EACH},
    'DRSformer, odd': {'dim': 10, 'num_blocks': ONE_EACH, 'heads': ONE_EACH, 'bias': True},  # 53 hidden channels
    'ELF': {'width': 12, 'depth': 2, 'reduction': 1},
    'NeRDRain': {'dim': 8, 'num_blocks': [1, 1, 1], 'bias': True},
}  # fmt: skip


SIZES = [(1, 1, 1), (7, 5, 10), (48, 64, 1024), (50, 3, 10**6), (9, 9, 1)]  # height, width, pixels of a strip


def build(name):
    torch.manual_seed(0)
    return ARCH_REGISTRY.get(name.split(',')[0])(**NETWORKS[name]).eval()


def plain_and_fast(name, plan=None, dtype=torch.float32):
    net = build(name).to(dtype)
    fast = copy.deepcopy(net)
    assert accelerate(fast, plan)
    return net, fast


@torch.no_grad()
def run(net, x):
    return final_output(net(x))


@pytest.mark.parametrize('name', NETWORKS)
@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_strips_of_any_size_give_the_papers_order_of_operations(name, dtype, tolerance):
    """With values kept from strip to strip, and computed twice."""
    rain = torch.rand(2, 3, 32, 48, dtype=dtype)
    for layout, plan in zip(LAYOUTS, (StripPlan(1, 2**28), StripPlan(12 * 48, 0)), strict=True):
        net, fast = plain_and_fast(name, plan, dtype)
        wanted = run(net, rain)
        found = run(fast, rain.contiguous(memory_format=layout))
        assert (found - wanted).abs().max() <= tolerance * max(1, wanted.abs().max())


@pytest.mark.parametrize('name', NETWORKS)
def test_the_rainy_image_is_left_as_it_is(name):
    _, net = plain_and_fast(name)
    rain = torch.rand(1, 3, 32, 48).to(memory_format=torch.channels_last)
    before = rain.clone()
    first = run(net, rain).clone()
    assert torch.equal(run(net, rain), first)
    assert torch.equal(rain, before)


@pytest.mark.parametrize('kind', [DATB, TransformerBlock])
def test_a_block_called_alone_leaves_its_input_as_it_is(kind):
    _, net = plain_and_fast('DDSANet' if kind is DATB else 'Restormer')
    block = next(m for m in net.modules() if isinstance(m, kind))
    x = normal(1, 8, 16, 24).to(memory_format=torch.channels_last)
    before = x.clone()
    with torch.no_grad():
        out = block(x)
        assert torch.equal(x, before)
        assert torch.equal(run_blocks(nn.Sequential(block), x, StripPlan()), out)
        assert torch.equal(x, out)  # what run_blocks is given may be overwritten


def test_a_traced_network_holds_none_of_the_fused_operators():
    """It is to run elsewhere."""
    _, net = plain_and_fast('DDSANet')
    with torch.no_grad():
        traced = torch.jit.trace(net, torch.rand(1, 3, 16, 16))
        assert 'mkldnn' not in str(traced.inlined_graph)


@pytest.mark.parametrize(('height', 'width', 'pixels'), SIZES)
def test_every_row_stands_in_one_strip(height, width, pixels):
    rows = StripPlan(pixels).rows(torch.empty(1, 1, height, width))
    assert [row for part in rows for row in range(part.start, part.stop)] == list(range(height))
    assert all(part.start % 2 == 0 for part in rows)
    assert all((part.stop - part.start) * width <= max(pixels, 4 * width) + 2 * width for part in rows)


@pytest.mark.parametrize('halo', [0, 1, 4, 11])
def test_rows_that_were_given_may_be_overwritten(halo):
    image = normal(1, 3, 20, 6)
    original = image.clone()
    for strip in strips(image, halo, StripPlan(4 * 6), torch.clone):
        start, stop = max(0, strip.rows.start - halo), strip.rows.stop + halo
        assert torch.equal(strip.x, original[:, :, start:stop])
        assert torch.equal(strip.crop(strip.x), original[:, :, strip.rows])
        strip.of(image).fill_(9)
    assert (image == 9).all()


@pytest.mark.parametrize('layer', [
    nn.Conv2d(4, 5, 3, padding=1),
    nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.PixelShuffle(2)),
    nn.Sequential(nn.Conv2d(4, 2, 3, padding=1), nn.PixelUnshuffle(2)),
], ids=['same size', 'doubled', 'halved'])  # fmt: skip
def test_a_layer_may_change_the_resolution(layer):
    x = normal(2, 4, 24, 12)
    with torch.no_grad():
        assert (through(layer, x, 2, StripPlan(4 * 12)) - layer(x)).abs().max() <= 1e-6


def test_a_layer_of_another_kind_sees_the_whole_image():
    layer, x = nn.AdaptiveAvgPool2d(1), normal(1, 4, 24, 12)
    assert torch.equal(through(layer, x, 2, StripPlan(4 * 12)), layer(x))
    seen = []
    layer = nn.Conv2d(4, 4, 3, padding=1)
    layer.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    with torch.no_grad():
        through(layer, x, 1, StripPlan(4 * 12))
    assert seen == [(1, 4, 24, 12)]


def test_features_are_joined_in_the_room_that_was_left_for_them():
    up, project = nn.Sequential(nn.Conv2d(6, 12, 3, padding=1), nn.PixelShuffle(2)), nn.Conv2d(6, 3, 1)
    x, features = normal(2, 6, 8, 10), normal(2, 3, 16, 20, seed=2)
    plan = StripPlan(4 * 20)
    with torch.no_grad():
        wanted = torch.cat([up(x), features], dim=1)
        room, skip = with_room(features)
        assert torch.equal(skip, features)
        assert (join(up, x, skip, room, plan) - wanted).abs().max() <= 1e-6
        assert (fuse(project, up, x, features.clone(), plan) - project(wanted)).abs().max() <= 1e-6


def test_the_room_has_the_type_of_the_features_under_autocast():
    layer, rain = nn.Conv2d(3, 4, 3, padding=1), normal(1, 3, 8, 10)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        room, features = embed(layer, rain, StripPlan())
        assert room.dtype is features.dtype is torch.bfloat16
        assert room.shape == (1, 8, 8, 10)
        assert torch.equal(features, layer(rain))


# --- fused convolutions ------------------------------------------------------------------------------------


@pytest.mark.parametrize('activation', ['none', 'relu', 'gelu'])
@pytest.mark.parametrize('groups', [1, 8])
@pytest.mark.parametrize('bias', [True, False])
def test_fused_convolutions_equal_the_steps(activation, groups, bias):
    x = normal(1, 8, 9, 11).to(memory_format=torch.channels_last)
    weight, biases = normal(8, 8 // groups, 3, 3, seed=2), normal(8, seed=3) if bias else None
    steps = F.conv2d(x.double(), weight.double(), None if biases is None else biases.double(), 1, 1, 1, groups)
    function = {'none': lambda t: t, 'relu': F.relu, 'gelu': F.gelu}[activation]
    with torch.no_grad():
        assert fused_type(x)
        assert (conv(x, weight, biases, 1, 1, groups, activation) - function(steps)).abs().max() <= 2e-5
        other = normal(*steps.shape, seed=4).to(memory_format=torch.channels_last)
        assert (conv_times(x, other, weight, biases, 1, groups) - steps * other).abs().max() <= 5e-5


@pytest.mark.parametrize('activation', ['none', 'relu'])
def test_a_convolution_is_added_in_place_to_whatever_lies_there(activation):
    wide = normal(1, 8, 12, 11).to(memory_format=torch.channels_last)
    weight = normal(6, 8, 1, 1, seed=2)
    function = F.relu if activation == 'relu' else lambda t: t
    room = normal(1, 12, 6, 11, seed=3).to(memory_format=torch.channels_last)
    for total in (room[:, :6].clone(memory_format=torch.channels_last), room[:, 6:], room[:, :6].contiguous()):
        x = wide[:, :, 3:9]  # rows of a larger tensor
        wanted = function(total + F.conv2d(x, weight))
        with torch.no_grad():
            found = conv_add_(total, x, weight, activation=activation)
        assert found.data_ptr() == total.data_ptr()
        assert (found - wanted).abs().max() <= 1e-5
    with torch.no_grad():
        assert (conv_add_(None, x, weight, activation=activation) - function(F.conv2d(x, weight))).abs().max() <= 1e-5


def test_there_is_no_fusion_where_it_would_be_wrong():
    x = normal(1, 8, 4, 4)
    assert not fused_type(x)  # with gradients
    with torch.no_grad():
        assert not fused_type(x.double())
        with torch.autocast('cpu', torch.float16):
            assert not fused_type(x)
        with torch.autocast('cpu', torch.bfloat16):
            assert not fused_type(x.half())


def test_under_autocast_fusions_round_no_more_than_the_steps():
    x, other = (normal(1, 8, 9, 11, seed=s).to(memory_format=torch.channels_last) for s in (1, 2))
    weight, biases = normal(8, 1, 3, 3, seed=3), normal(8, seed=4)
    rounded = [t.bfloat16().double() for t in (x, weight, biases)]
    exact = F.conv2d(*rounded, 1, 1, 1, 8)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        if not fused_type(x):
            pytest.skip('this processor does not multiply bfloat16')
        assert fused_type(x) is fused_type(x.bfloat16()) is torch.bfloat16
        total = other.bfloat16()
        wide = other.clone(memory_format=torch.channels_last)  # a float32 sum is not rounded
        found = {
            'gelu': conv(x, weight, biases, 1, 1, 8, 'gelu'),
            'times': conv_times(x, other, weight, biases, 1, 8),
            'add': conv_add_(total, x, weight, biases, 1, 8),
            'wide': conv_add_(wide, x, weight, biases, 1, 8),
        }
    other = other.bfloat16().double()
    wanted = {'gelu': F.gelu(exact), 'times': exact * other, 'add': exact + other, 'wide': exact + other}
    assert found['wide'] is wide
    assert found['add'] is total
    for name, result in found.items():
        error = (result.double() - wanted[name]).abs() / (wanted[name].abs() + 1)
        assert error.max() <= 2**-7, name  # two roundings to 8 bits


def test_channels_are_padded_and_grouped_to_friendly_widths():
    weight = normal(13, 3, 1, 1)
    assert torch.equal(aligned(weight)[:13], weight)
    assert aligned(weight).shape == (16, 3, 1, 1)
    assert not aligned(weight)[13:].any()
    assert aligned(weight, dim=1).shape == (13, 8, 1, 1)
    assert aligned(weight[:8]).shape == (8, 3, 1, 1)
    assert channel_groups(127, 1000) == [slice(0, 127)]
    assert channel_groups(255, 128) == [slice(0, 128), slice(128, 255)]
    assert channel_groups(100, 1) == [slice(0, 32), slice(32, 64), slice(64, 96), slice(96, 100)]


@pytest.mark.parametrize('width', [1, 5, 6, 7, 12, 13, 40])
@pytest.mark.parametrize('kernel', [3, 5, 7])
def test_a_dilated_kernel_may_be_taken_apart(kernel, width):
    layer, x = DilatedConv(8, kernel), normal(2, 8, 15, width)
    weight, mix = layer.op[0].weight, layer.op[1].weight
    wanted = F.conv2d(F.conv2d(x, weight, None, 1, kernel - 1, 2, 8), mix)
    assert accelerate(layer)
    found = layer(x)
    assert (found - wanted).abs().max() <= 1e-5
    factors = normal(*wanted.shape, seed=5)
    gradients = [torch.autograd.grad((out * factors).sum(), weight)[0] for out in (found, wanted)]
    assert (gradients[0] - gradients[1]).abs().max() <= 1e-4


# --- memory and compilers ----------------------------------------------------------------------------------

MEASURE = """
import sys, torch
import ddsa_arch
from basicsr.archs import build_network
from ddsa_arch.fast import accelerate
from ddsa_arch.fast.strips import StripPlan
from ddsa_arch.machine.memory import PeakMemory
net = build_network({'type': 'DDSANet', 'dim': 16, 'blocks': [1, 1, 1, 1, 1]}).eval()
net.to(memory_format=torch.channels_last)
if sys.argv[1] == 'strips':
    accelerate(net, StripPlan(2**13, 0))
with torch.inference_mode():
    net(torch.rand(1, 3, 64, 64))
    rain = torch.rand(1, 3, 320, 320).to(memory_format=torch.channels_last)
    memory = PeakMemory()
    start = memory.now()
    net(rain)
    print(memory.peak() - start)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='the peak is measured as Linux counts it')
def test_strips_need_less_than_half_of_the_memory():
    whole, in_parts = (
        int(subprocess.run([sys.executable, '-c', MEASURE, mode], capture_output=True, text=True, check=True).stdout)
        for mode in ('whole', 'strips')
    )
    assert in_parts < whole / 2


@pytest.mark.slow
@pytest.mark.parametrize('name', ['DDSANet', 'Restormer', 'DRSformer', 'ELF'])
@pytest.mark.parametrize('training', [True, False])
def test_a_compiler_finds_one_graph_for_sizes_of_its_own(name, training):
    torch._dynamo.reset()
    net, fast = plain_and_fast(name)
    compiled = torch.compile(fast, backend='eager', fullgraph=True, dynamic=True)
    with torch.set_grad_enabled(training):
        for size in ((48, 64), (32, 80)):
            rain = torch.rand(1, 3, *size)
            assert (final_output(compiled(rain)) - run(net, rain)).abs().max() <= 1e-5
