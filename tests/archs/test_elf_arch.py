"""ELF and ELF-LW against the published numbers and a literal twin on the state dict."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from ddsa_arch.archs.blocks.association import resize
from ddsa_arch.archs.blocks.channel_attention import CA
from ddsa_arch.archs.complexity import complexity
from ddsa_arch.archs.elf_arch import ELF, ELFLW, HFN, MAM, quadrants, transposed_shuffle
from ddsa_arch.losses.pixel_loss import DerainCharbonnierLoss

VARIANTS = {'elf_orb10': ELF, 'elf': partial(ELF, depth=5), 'elf_lw': ELFLW}
FAST, *SLOW = '1x3x64x64', '2x3x64x96', '1x3x48x80'


def check_published(file, build, sizes):
    outputs = file.spec['runs']['plain']['outputs']
    file.spec['runs']['plain']['outputs'] = {size: outputs[size] for size in sizes if size in outputs}
    assert file.spec['runs']['plain']['outputs']
    file.check(build(), lambda net, x: dict(zip(('background_half', 'restored'), net(x), strict=True)))


@pytest.mark.parametrize('name', VARIANTS)
def test_the_published_outputs_are_reached(golden, name):
    check_published(golden(name), VARIANTS[name], [FAST])


@pytest.mark.slow
@pytest.mark.parametrize('name', VARIANTS)
def test_the_published_outputs_of_other_sizes_are_reached(golden, name):
    check_published(golden(name), VARIANTS[name], SLOW)


def tiny(kind=ELF, **changes):
    """A small network whose weights of every kind are away from their initial values."""
    torch.manual_seed(0)
    net = kind(**({'width': 8, 'depth': 2} | changes))
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return net


def bilinear(size, factor):
    """The matrix of bilinear interpolation of ``size`` pixels, centres at half-integers, one number at a time."""
    matrix = torch.zeros(int(size * factor), size, dtype=torch.float64)
    for i in range(len(matrix)):
        place = max(0.0, (i + 0.5) / factor - 0.5)
        for j in (int(place), int(place) + 1):
            matrix[i, min(j, size - 1)] += 1 - abs(place - j)
    return matrix


def resized(x, factor):
    rows, columns = (bilinear(size, factor) for size in x.shape[2:])
    return torch.einsum('ih,bchw,jw->bcij', rows, x, columns)


class Literal:
    """The networks written out on their state dict, after the release's description."""

    def __init__(self, net):
        self.weights = {k: v.detach() for k, v in net.state_dict().items()}
        self.light = isinstance(net, ELFLW)

    def conv(self, x, name, stride=1, groups=1):
        weight = self.weights[f'{name}.weight']
        bias = self.weights.get(f'{name}.bias')
        return F.conv2d(x, weight, bias, stride, padding=weight.shape[-1] // 2, groups=groups)

    def depthwise(self, x, name):
        return self.conv(x, name, groups=x.shape[1])

    def dsc(self, inputs, name):
        x = torch.cat(inputs, 1)
        return self.conv(self.depthwise(x, f'{name}.depth_conv'), f'{name}.point_conv')

    def prelu(self, x, name):
        return x.clamp(min=0) + self.weights[f'{name}.weight'] * x.clamp(max=0)

    def ca(self, x, name):
        gate = self.conv(x.flatten(2).mean(2)[..., None, None], f'{name}.conv_du.0').clamp(min=0)
        return x * torch.sigmoid(self.conv(gate, f'{name}.conv_du.2'))

    def s2fb(self, p, q, name):
        return self.ca(self.dsc([p, q], f'{name}.DSC'), f'{name}.CA_fea') + p

    def cab(self, x, name):
        y = self.prelu(self.conv(x, f'{name}.body.0'), f'{name}.body.1')
        return self.ca(self.conv(y, f'{name}.body.2'), f'{name}.CA') + x

    def cab_dsc(self, x, name):
        y = self.prelu(self.dsc([x], f'{name}.body.0'), f'{name}.body.1')
        r = self.ca(self.dsc([y], f'{name}.body.2'), f'{name}.CA')
        return self.s2fb(r, x, f'{name}.S2FB2')

    def norm(self, x, name):
        mean = x.mean(1, keepdim=True)
        variance = ((x - mean) ** 2).mean(1, keepdim=True)
        weight, bias = (self.weights[f'{name}.body.{key}'].view(-1, 1, 1) for key in ('weight', 'bias'))
        return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias

    def attend(self, q, k, v, name):
        temperature = self.weights[f'{name}.temperature']
        heads = []
        for head, parts in enumerate(zip(*(t.chunk(len(temperature), 1) for t in (q, k, v)), strict=True)):
            rows, keys, values = (part.flatten(2) for part in parts)  # (B, d, N)
            rows, keys = (t / t.norm(dim=2, keepdim=True).clamp(min=1e-12) for t in (rows, keys))
            weights = (torch.einsum('bin,bjn->bij', rows, keys) * temperature[head]).softmax(2)
            heads.append(torch.einsum('bij,bjn->bin', weights, values).view_as(parts[2]))
        return self.conv(torch.cat(heads, 1), f'{name}.project_out')

    def gdfn(self, x, name):
        a, b = self.depthwise(self.conv(x, f'{name}.project_in'), f'{name}.dwconv').chunk(2, 1)
        gated = F.gelu(a) if f'{name}.act1.weight' not in self.weights else self.prelu(a, f'{name}.act1')
        return self.conv(gated * b, f'{name}.project_out')

    def former(self, x, name):
        qkv = self.depthwise(self.conv(self.norm(x, f'{name}.norm1'), f'{name}.attn.qkv'), f'{name}.attn.qkv_dwconv')
        x = x + self.attend(*qkv.chunk(3, 1), f'{name}.attn')
        return x + self.gdfn(self.norm(x, f'{name}.norm2'), f'{name}.ffn')

    def down(self, x, name, factor=0.5):
        return self.conv(resized(x, factor), f'{name}.down.1')

    def up(self, x, name, factor=2):
        return self.conv(resized(x, factor), f'{name}.up.1')

    def encode(self, x, name):
        levels = []
        for level in (1, 2, 3):
            x = self.down(x, f'{name}.down_stage{level}')
            block = f'{name}.encoder_level{level}'
            x = self.s2fb(x, self.cab_dsc(x, f'{block}.CAB1'), f'{block}.S2FB2')
            levels.append(x)
        return levels

    def stage(self, x, s1, s2, s3, name):
        u = self.dsc([s2, s3], f'{name}.S2FB0.DSC1')
        u = self.dsc([s1, u], f'{name}.S2FB0.DSC2')
        u = self.dsc([x, u], f'{name}.S2FB0.DSC3')
        g = self.ca(u, f'{name}.S2FB0.CA_fea') + u
        return self.s2fb(g, self.cab(g, f'{name}.CAB1'), f'{name}.S2FB2')

    def decode(self, e1, e2, e3, name):
        coarse = self.down(e2, f'{name}.down_23'), self.down(e1, f'{name}.down_13', 0.25)
        z = self.stage(e3, e3, *coarse, f'{name}.decoder_level3')
        middle = self.down(e1, f'{name}.down_12'), self.up(e3, f'{name}.up_32')
        z = self.stage(self.up(z, f'{name}.up_stage3'), e2, *middle, f'{name}.decoder_level2')
        fine = self.up(e2, f'{name}.up_21'), self.up(e3, f'{name}.up_31', 4)
        z = self.stage(self.up(z, f'{name}.up_stage2'), e1, *fine, f'{name}.decoder_level1')
        return self.up(z, f'{name}.up_stage1')

    def hfn(self, x, name, branch):
        t = x
        for i in range(sum(f'{name}.orsnet.' in k and k.endswith('temperature') for k in self.weights)):
            t = self.former(t, f'{name}.orsnet.orb.modules_body.{i}')
        t = self.conv(t, f'{name}.orsnet.orb.conv') + x
        g = self.decode(*self.encode(x, f'{branch}_encoder'), f'{branch}_decoder')
        return self.s2fb(t, g, f'{name}.S2FB_fuse')

    def estimate_rain(self, rainy):
        height, width = rainy.shape[2] // 2, rainy.shape[3] // 2
        half = resized(rainy, 0.5)
        f1 = self.cab(self.conv(half, 'dsnet.shallow_feat1.0'), 'dsnet.shallow_feat1.1')
        corners = [rainy[:, :, i : i + height, j : j + width] for i in (0, height) for j in (0, width)]
        f2 = self.cab(self.conv(torch.cat(corners, 1), 'dsnet.shallow_feat2.0'), 'dsnet.shallow_feat2.1')
        f2 = self.former(f2, 'dsnet.former.0')
        f = self.conv(torch.cat([f1, f2], 1), 'dsnet.fuse_conv')
        rain = self.conv(self.hfn(f, 'dsnet', 'dsnet.dsnnet'), 'dsnet.tail')
        return rain, half - rain

    def mam(self, rainy, rain, background, name='ssnet.stem'):
        a = self.conv(rainy, f'{name}.conv_stem0', stride=2)
        p = self.conv(rain, f'{name}.conv_stem2')
        q = self.depthwise(self.norm(p, f'{name}.former.norm_key'), f'{name}.former.attn.q')
        k = self.depthwise(self.norm(a, f'{name}.former.norm_query'), f'{name}.former.attn.k')
        v = self.depthwise(self.norm(a, f'{name}.former.norm_value'), f'{name}.former.attn.v')
        att = a + self.attend(q, k, v, f'{name}.former.attn')
        att = att + self.gdfn(self.norm(att, f'{name}.former.norm2'), f'{name}.former.ffn')
        return self.s2fb(self.conv(background, f'{name}.conv_stem3'), att, f'{name}.S2FB')

    def recover(self, rainy, rain, background):
        f = self.mam(rainy, rain, background)
        if self.light:
            f = self.former(self.hfn(f, 'ssnet', 'ssnet.ssnnet'), 'ssnet.former.0')
        else:
            f = self.hfn(self.former(f, 'ssnet.former.0'), 'ssnet', 'ssnet.ssnnet')
        recon = self.conv(literal_shuffle(self.conv(f, 'ssnet.deep_conv')), 'ssnet.tail')
        return recon + resized(background, 2) if self.light else rainy - (recon + resized(rain, 2))

    def __call__(self, rainy):
        rain, background = self.estimate_rain(rainy)
        return [background, self.recover(rainy, rain, background)]


def literal_shuffle(x):
    batch, channels, height, width = x.shape
    out = torch.zeros(batch, channels // 4, 2 * height, 2 * width, dtype=x.dtype)
    for c in range(channels // 4):
        for i in (0, 1):
            for j in (0, 1):
                out[:, c, j::2, i::2] = x[:, c * 4 + i * 2 + j]
    return out


@pytest.mark.parametrize(
    ('kind', 'changes'),
    [(ELF, {}), (ELF, {'depth': 1, 'heads': 4, 'mam_heads': 2, 'gate': 'gelu', 'reduction': 2}), (ELFLW, {})],
)
@pytest.mark.parametrize('shape', [(1, 3, 16, 16), (2, 3, 32, 48)])
def test_the_network_equals_the_one_written_out(kind, changes, shape):
    net = tiny(kind, **changes).double()
    x = torch.rand(shape, dtype=torch.float64)
    with torch.no_grad():
        for out, expected in zip(net(x), Literal(net)(x), strict=True):
            assert (out - expected).abs().max() < 1e-11 * expected.abs().max()


def test_quadrants_are_crops_in_reading_order():
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    out = quadrants(x)
    assert out.shape == (2, 12, 2, 3)
    assert torch.equal(out[:, :3], x[:, :, :2, :3])
    assert torch.equal(out[:, 3:6], x[:, :, :2, 3:])
    assert torch.equal(out[:, 6:9], x[:, :, 2:, :3])
    assert torch.equal(out[:, 9:], x[:, :, 2:, 3:])


def test_the_shuffle_exchanges_rows_and_columns_of_a_pixel_shuffle():
    x = torch.randn(2, 8, 3, 5)
    out = transposed_shuffle(x)
    assert torch.equal(out, literal_shuffle(x))
    assert torch.equal(out, F.pixel_shuffle(x.mT, 2).mT)
    assert not torch.equal(out, F.pixel_shuffle(x, 2))


def test_a_quarter_of_the_size_takes_the_central_pixels_alone():
    net = resize('down', 1, 0.25)
    net.down[1].weight.data.fill_(1)
    x = torch.rand(1, 1, 8, 12)
    expected = x.unfold(2, 4, 4).unfold(3, 4, 4)[..., 1:3, 1:3].mean((-2, -1))
    assert (net(x) - expected).abs().max() < 1e-6


def test_the_queries_of_the_mam_come_from_the_rain():
    """With equal scores every channel is the mean of the values whatever the rain is, so the rain gives no values."""
    net = tiny().ssnet.stem
    rainy, rain, background = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    before = net(rainy, rain, background)
    assert (net(rainy, rain.flip(2), background) - before).abs().max() > 1e-4
    net.former.attn.temperature.data.zero_()
    assert torch.equal(net(rainy, rain.flip(2), background), net(rainy, rain, background))
    assert not torch.equal(net(rainy.flip(2), rain, background), net(rainy, rain, background))


def test_the_background_at_half_the_size_comes_first_and_the_losses_take_it():
    x = torch.rand(2, 3, 32, 48)
    outputs = tiny()(x)
    assert [tuple(o.shape) for o in outputs] == [(2, 3, 16, 24), (2, 3, 32, 48)]
    loss = DerainCharbonnierLoss(loss_weight=0.3, output_weights=[0.8, 1])
    half = loss.distance(outputs[0], F.interpolate(x, scale_factor=0.5, mode='bilinear'))
    assert loss(outputs, x).item() == pytest.approx(0.3 * (0.8 * half + loss.distance(outputs[1], x)).item())


@pytest.mark.parametrize('kind', [ELF, ELFLW])
def test_without_details_what_stays_is_the_upsampled_estimate(kind):
    net = tiny(kind)
    net.ssnet.tail.weight.data.zero_()
    x = torch.rand(1, 3, 16, 32)
    background, restored = net(x)
    rain = F.avg_pool2d(x, 2) - background
    larger = {ELF: rain, ELFLW: background}[kind]
    larger = F.interpolate(larger, scale_factor=2, mode='bilinear', align_corners=False)
    assert (restored - (x - larger if kind is ELF else larger)).abs().max() < 1e-6


@pytest.mark.parametrize(
    ('kind', 'arguments', 'parameters', 'weighed', 'features'),
    [
        (ELF, {}, 1_536_782, 16_532_076_672, 981_467_136),
        (ELF, {'depth': 5}, 1_223_972, 11_438_946_432, 603_979_776),
        (ELFLW, {}, 568_308, 5_337_403_904, 411_041_792),
    ],
)
def test_size_and_cost_are_the_published_ones(kind, arguments, parameters, weighed, features):
    found = complexity(kind(**arguments), 256, 256)
    assert (found.parameters, found.weighed_macs, found.feature_macs) == (parameters, weighed, features)


def test_the_paper_counts_neither_norms_nor_temperatures_and_each_place_of_a_shared_slope():
    net = ELF()
    uncounted = sum(p.numel() for n, p in net.named_parameters() if '.norm' in n or n.endswith('.temperature'))
    assert uncounted == 4651
    aliases = sum(v.numel() for v in net.state_dict().values()) - sum(p.numel() for p in net.parameters())
    assert aliases == 12
    assert sum(p.numel() for p in net.parameters()) - uncounted + aliases == 1_532_143


def test_one_slope_serves_the_convolution_blocks_of_each_of_the_two_networks():
    net = tiny()
    places = {}
    for name, value in net.state_dict().items():
        if name.endswith('.body.1.weight') and value.ndim == 1:
            places.setdefault(value.data_ptr(), []).append(name.split('.')[0])
    assert list(places.values()) == [['dsnet'] * 8, ['ssnet'] * 6]
    assert len({m for m in ELF().modules() if isinstance(m, nn.PReLU)}) == 2 + 2 * 10 + 3
    assert {m.weight.item() for m in ELF(depth=1).modules() if isinstance(m, nn.PReLU)} == {0.25}


def test_two_networks_have_slopes_of_their_own():
    first, second = tiny(), tiny()
    untouched = copy.deepcopy(second.state_dict())
    first.dsnet.shared_prelu().weight.data.fill_(0.9)
    assert all(torch.equal(v, untouched[k]) for k, v in second.state_dict().items())


def test_only_separable_convolutions_have_a_bias_and_only_the_embedding_of_the_image_has_a_stride():
    convs = {n: m for n, m in ELF(depth=1).named_modules() if isinstance(m, nn.Conv2d)}
    assert {n for n, m in convs.items() if m.bias is not None} == {n for n in convs if n.endswith(('h_conv', 't_conv'))}
    assert [n for n, m in convs.items() if m.stride != (1, 1)] == ['ssnet.stem.conv_stem0']


@pytest.mark.parametrize('kind', [ELF, ELFLW])
def test_the_reduction_reaches_every_channel_attention(kind):
    found = [m.conv_du[0].out_channels for m in tiny(kind, reduction=2).modules() if isinstance(m, CA)]
    assert found == [4] * 41


@pytest.mark.parametrize('name', ['MAM', 'HFN'])
def test_the_parts_are_registered_but_are_no_networks(name):
    assert not hasattr(ARCH_REGISTRY.get(name), 'size_multiple')


@pytest.mark.parametrize(('network', 'prefix'), [('dsnet', 'dsnnet_'), ('ssnet', 'ssnnet_')])
def test_the_hfn_of_a_network_is_the_part(network, prefix):
    """Its layers lie among the network's own, under the published names."""
    whole = getattr(tiny(), network)
    part = HFN(width=8, depth=2)
    weights = {k.removeprefix(prefix): v for k, v in whole.state_dict().items()}
    part.load_state_dict({k: weights[k] for k in part.state_dict()}, strict=True)
    x = torch.rand(1, 8, 16, 24)
    assert torch.equal(part(x), HFN.forward(whole, x))
    assert part.shared_prelu().weight.item() == whole.shared_prelu().weight.item()


def test_the_mam_of_the_network_is_the_part():
    whole = tiny(mam_heads=2).ssnet.stem
    part = MAM(width=8, heads=2)
    part.load_state_dict(whole.state_dict(), strict=True)
    inputs = torch.rand(1, 3, 16, 32), torch.rand(1, 3, 8, 16), torch.rand(1, 3, 8, 16)
    assert torch.equal(part(*inputs), whole(*inputs))


@pytest.mark.parametrize('size', [20, 24, 40])
def test_a_size_that_is_no_multiple_of_16_does_not_pass(size):
    with pytest.raises(RuntimeError, match='Sizes of tensors must match'):
        tiny()(torch.rand(1, 3, size, size))


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'depth': 0}, 'depth: 0 leaves no Former in a branch; the published network has 10'),
        ({'gate': 'relu'}, "gate: 'relu' is not known; choose one of prelu, gelu"),
        ({'heads': 3}, 'heads: 3 does not divide the 8 channels; try 1'),
        ({'mam_heads': 3}, 'heads of the MAM: 3 does not divide the 8 channels; 1 always does'),
        ({'mam_heads': 0}, 'heads of the MAM: 0 does not divide the 8 channels'),
        ({'width': 9, 'heads': 1}, 'width: 9 is odd.*try 10'),
        ({'reduction': 9}, 'reduction: 9 leaves no hidden channel of 8; take one between 1 and 8'),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(arguments, words):
    with pytest.raises(ValueError, match=words):
        tiny(**arguments)


def test_the_result_does_not_depend_on_the_memory_layout():
    net = tiny().double()
    x = torch.rand(2, 3, 32, 16, dtype=torch.float64)
    expected = net(x)
    net.to(memory_format=torch.channels_last)
    for out, wanted in zip(net(x.to(memory_format=torch.channels_last)), expected, strict=True):
        assert (out - wanted).abs().max() < 1e-11 * wanted.abs().max()


@pytest.mark.parametrize('kind', [ELF, ELFLW])
def test_mixed_precision_stays_near_float32(kind):
    torch.manual_seed(0)
    net = kind(width=8, depth=1).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        exact = net(x)
        with torch.autocast('cpu', torch.bfloat16):
            rounded = net(x)
    for a, b in zip(exact, rounded, strict=True):
        assert b.dtype == torch.float32  # the image, or the half-size background, is added in float32
        assert 0 < (a - b).abs().max() < 0.02
