"""MPRNet against the published numbers and a literal twin that takes the image apart quarter by quarter."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ddsa_arch.archs.mprnet_arch import Down, MPRNet, Up, from_parts, to_parts


def published(net, x):
    return dict(zip(('stage1', 'stage2', 'stage3'), net(x), strict=True))


def tiny(**changes):
    torch.manual_seed(0)
    small = {'n_feat': 8, 'scale_unetfeats': 4, 'scale_orsnetfeats': 4, 'num_cab': 1, 'reduction': 1}
    return MPRNet(**(small | changes))


def test_the_published_outputs_are_reached(golden):
    golden('mprnet').check(MPRNet(), published)


class Literal:
    """The network written out on its state dict: no modules, every part of the image by itself, convolutions bare."""

    def __init__(self, net):
        self.weights = net.state_dict()
        self.num_cab = sum('.orb1.' in name and name.endswith('CA.conv_du.0.weight') for name in self.weights)

    def conv(self, x, name):
        weight = self.weights[f'{name}.weight']
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)

    def cab(self, x, name):
        y = self.conv(x, f'{name}.body.0')
        y = y.clamp(min=0) + self.weights[f'{name}.body.1.weight'] * y.clamp(max=0)
        y = self.conv(y, f'{name}.body.2')
        gate = self.conv(y.flatten(2).mean(2)[..., None, None], f'{name}.CA.conv_du.0').clamp(min=0)
        return x + y * torch.sigmoid(self.conv(gate, f'{name}.CA.conv_du.2'))

    def cabs(self, x, name):
        return self.cab(self.cab(x, f'{name}.0'), f'{name}.1')

    def shallow(self, x, name):
        return self.cab(self.conv(x, f'{name}.0'), f'{name}.1')

    def down(self, x, name):
        x = F.interpolate(x, scale_factor=0.5, mode='bilinear', align_corners=False)
        return self.conv(x, f'{name}.down.1')

    def up(self, x, name):
        return self.conv(F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False), f'{name}.up.1')

    def encode(self, x, name, fusion=None):
        levels = []
        for level in (1, 2, 3):
            if level > 1:
                x = self.down(x, f'{name}.down{level - 1}{level}')
            x = self.cabs(x, f'{name}.encoder_level{level}')
            if fusion:
                encoded, decoded = fusion
                x = x + self.conv(encoded[level - 1], f'{name}.csff_enc{level}')
                x = x + self.conv(decoded[level - 1], f'{name}.csff_dec{level}')
            levels.append(x)
        return levels

    def decode(self, levels, name):
        d3 = self.cabs(levels[2], f'{name}.decoder_level3')
        d2 = self.up(d3, f'{name}.up32') + self.cab(levels[1], f'{name}.skip_attn2')
        d2 = self.cabs(d2, f'{name}.decoder_level2')
        d1 = self.up(d2, f'{name}.up21') + self.cab(levels[0], f'{name}.skip_attn1')
        return [self.cabs(d1, f'{name}.decoder_level1'), d2, d3]

    def sam(self, features, rain, name):
        image = self.conv(features, f'{name}.conv2') + rain
        mask = torch.sigmoid(self.conv(image, f'{name}.conv3'))
        return self.conv(features, f'{name}.conv1') * mask + features, image

    def orsnet(self, x, encoded, decoded, name):
        for j in (1, 2, 3):
            y = x
            for i in range(self.num_cab):
                y = self.cab(y, f'{name}.orb{j}.body.{i}')
            x = x + self.conv(y, f'{name}.orb{j}.body.{self.num_cab}')
            for kind, levels in (('enc', encoded), ('dec', decoded)):
                y = levels[j - 1]
                if j == 2:
                    y = self.up(y, f'{name}.up_{kind}1')
                if j == 3:
                    y = self.up(self.up(y, f'{name}.up_{kind}2.0'), f'{name}.up_{kind}2.1')
                x = x + self.conv(y, f'{name}.conv_{kind}{j}')
        return x

    def __call__(self, rain):
        height, width = rain.shape[2] // 2, rain.shape[3] // 2
        images1, encoded2 = [], []
        for half in (rain[:, :, :height], rain[:, :, height:]):
            left = self.encode(self.shallow(half[..., :width], 'shallow_feat1'), 'stage1_encoder')
            right = self.encode(self.shallow(half[..., width:], 'shallow_feat1'), 'stage1_encoder')
            encoded = [torch.cat(pair, 3) for pair in zip(left, right, strict=True)]
            decoded = self.decode(encoded, 'stage1_decoder')
            features, image = self.sam(decoded[0], half, 'sam12')
            images1.append(image)
            x = self.conv(torch.cat([self.shallow(half, 'shallow_feat2'), features], 1), 'concat12')
            encoded2.append(self.encode(x, 'stage2_encoder', (encoded, decoded)))
        encoded = [torch.cat(pair, 2) for pair in zip(*encoded2, strict=True)]
        decoded = self.decode(encoded, 'stage2_decoder')
        features, image2 = self.sam(decoded[0], rain, 'sam23')
        x = self.conv(torch.cat([self.shallow(rain, 'shallow_feat3'), features], 1), 'concat23')
        x = self.orsnet(x, encoded, decoded, 'stage3_orsnet')
        return [torch.cat(images1, 2), image2, self.conv(x, 'tail') + rain]


@pytest.mark.parametrize('changes', [{}, {'num_cab': 3, 'scale_unetfeats': 5, 'kernel_size': 5, 'reduction': 2}])
@pytest.mark.parametrize('shape', [(1, 3, 8, 8), (2, 3, 16, 24)])
def test_the_network_equals_the_one_that_takes_each_part_by_itself(changes, shape):
    net = tiny(**changes).double()
    net.shallow_feat1[1].body[1].weight.data.fill_(0.4)
    x = torch.rand(shape, dtype=torch.float64)
    with torch.no_grad():
        for out, expected in zip(net(x), Literal(net)(x), strict=True):
            assert (out - expected).abs().max() < 1e-12


def test_parts_are_the_quarters_of_the_image_and_can_be_joined():
    x = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    quarters = to_parts(to_parts(x, dim=2), dim=3)
    assert quarters.shape == (8, 3, 2, 3)
    assert torch.equal(quarters[0], x[0, :, :2, :3])  # upper left of the first image
    assert torch.equal(quarters[3], x[1, :, 2:, :3])  # lower left of the second one
    assert torch.equal(quarters[4], x[0, :, :2, 3:])  # upper right of the first one
    assert torch.equal(from_parts(from_parts(quarters, dim=3), dim=2), x)


def literal_bilinear(x, size):
    """Bilinear interpolation of (H, W) to a size, pixel centres at half-integers, one pixel at a time."""
    out = torch.zeros(size, dtype=x.dtype)
    for i in range(size[0]):
        for j in range(size[1]):
            row, column = (
                max(0.0, (k + 0.5) * old / new - 0.5) for k, old, new in zip((i, j), x.shape, size, strict=True)
            )
            for r in (int(row), int(row) + 1):
                for c in (int(column), int(column) + 1):
                    pixel = x[min(r, x.shape[0] - 1), min(c, x.shape[1] - 1)]
                    out[i, j] += (1 - abs(row - r)) * (1 - abs(column - c)) * pixel
    return out


@pytest.mark.parametrize(('kind', 'name', 'factor'), [(Down, 'down', 0.5), (Up, 'up', 2)])
def test_levels_are_bilinear_steps_before_a_1x1_convolution(kind, name, factor):
    net = kind(3, 5).double()
    x = torch.randn(1, 3, 6, 4, dtype=torch.float64)
    size = (int(6 * factor), int(4 * factor))
    resized = torch.stack([literal_bilinear(channel, size) for channel in x[0]])
    weight = getattr(net, name)[1].weight[:, :, 0, 0]
    assert (net(x)[0] - torch.einsum('oc,chw->ohw', weight, resized)).abs().max() < 1e-12


def test_the_first_stage_sees_halves_and_the_second_one_the_whole_image():
    net = tiny().double()
    x = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    other = x.clone()
    other[:, :, 8:] = torch.rand(1, 3, 8, 16, dtype=torch.float64)
    before, after = net(x), net(other)
    assert torch.equal(before[0][:, :, :8], after[0][:, :, :8])
    assert not torch.equal(before[1][:, :, :8], after[1][:, :, :8])


def test_the_encoder_of_the_first_stage_sees_quarters():
    net, seen = tiny(), []
    net.stage1_encoder.register_forward_hook(lambda module, inputs, output: seen.append(output))
    x = torch.rand(1, 3, 16, 16)
    other = x.clone()
    other[:, :, :, 8:] = torch.rand(1, 3, 16, 8)
    net(x), net(other)
    for before, after in zip(*seen, strict=True):
        assert torch.equal(before[:2], after[:2])  # the left quarters
        assert not torch.equal(before[2:], after[2:])


def test_the_last_stage_adds_a_residual_to_the_input():
    net = tiny()
    net.tail.weight.data.zero_()
    x = torch.rand(1, 3, 16, 24)
    assert torch.equal(net(x)[-1], x)


def slopes(net):
    return [m for m in net.modules() if isinstance(m, nn.PReLU)]


def test_one_slope_serves_all_blocks_of_a_network():
    net = MPRNet()
    names = [k for k in net.state_dict() if k.endswith('body.1.weight') and net.state_dict()[k].ndim == 1]
    assert len(names) == 55
    assert len({net.state_dict()[k].data_ptr() for k in names}) == 1
    assert len(slopes(net)) == 1  # modules() names a shared module once
    assert slopes(net)[0].weight.item() == 0.25
    assert len(net.state_dict()) == 316


def test_two_networks_have_two_slopes():
    first, second = tiny(), tiny()
    untouched = copy.deepcopy(second.state_dict())
    (weight,) = (m.weight for m in slopes(first))
    weight.data.fill_(0.9)
    assert all(torch.equal(v, untouched[k]) for k, v in second.state_dict().items())


def test_a_copy_keeps_one_slope_of_its_own():
    net = tiny()
    clone = copy.deepcopy(net)
    assert len(slopes(clone)) == 1
    assert slopes(clone)[0] is not slopes(net)[0]


def products(net, *shape):
    """Multiply-adds of all convolutions, without computing any."""
    count = 0

    def add(module, inputs, output):
        nonlocal count
        pixels = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        count += module.weight.numel() * pixels.numel() // pixels.shape[1]

    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(add)
    net(torch.empty(shape, device='meta'))
    return count


def test_the_published_network_has_the_published_cost():
    with torch.device('meta'):
        net = MPRNet()
    assert sum(p.numel() for p in net.parameters()) == 3_637_249
    assert products(net, 1, 3, 256, 256) == 140_982_247_208


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'kernel_size': 4}, 'kernel_size: 4 cannot keep the size'),
        ({'reduction': 9}, 'reduction: 9 leaves no hidden channel of 8; take one between 1 and 8'),
        ({'num_cab': 0}, 'num_cab: 0 leaves nothing to repeat; the published network has 8'),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(arguments, words):
    with pytest.raises(ValueError, match=words):
        tiny(**arguments)


def test_bias_reaches_every_convolution():
    net = tiny(bias=True)
    assert all(m.bias is not None for m in net.modules() if isinstance(m, nn.Conv2d))
    assert all(m.bias is None for m in tiny().modules() if isinstance(m, nn.Conv2d))


def test_mixed_precision_stays_near_float32():
    net = tiny().eval()
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        exact = net(x)
        with torch.autocast('cpu', torch.bfloat16):
            rounded = net(x)
    for a, b in zip(exact, rounded, strict=True):
        assert b.dtype == torch.float32  # the image is added in the precision of the input
        assert 0 < (a - b).abs().max() < 0.02
