"""PReNet, PRN and their recursive forms against the published numbers, their weights and a literal twin."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ddsa_arch.archs.complexity import complexity
from ddsa_arch.archs.prenet_arch import PRN, PReNet, PReNet_r, PRN_r, ResidualBlock
from ddsa_arch.archs.weights import load_weights
from ddsa_arch.data.image_source import to_tensor
from ddsa_arch.files.images import read_image
from ddsa_arch.models.restore import restore, to_uint8
from ddsa_arch.ops.quality import psnr_y

NETWORKS = [PReNet, PReNet_r, PRN, PRN_r]
KINDS = pytest.mark.parametrize('kind', NETWORKS)


def published(net, x):
    images = net(x)
    return {f'stage{t}': image for t, image in enumerate(images, 1)} | {'final': images[-1]}


def tiny(kind, **changes):
    torch.manual_seed(0)
    return kind(**({'stages': 3, 'width': 4, 'blocks': 2} | changes))


@pytest.mark.parametrize(
    ('stem', 'kind'), zip(('prenet', 'prenet_prenet_r', 'prenet_prn', 'prenet_prn_r'), NETWORKS, strict=True)
)
def test_the_published_outputs_are_reached(golden, stem, kind):
    golden(stem).check(kind(), published)


@pytest.mark.parametrize('kind', [PReNet, PReNet_r, PRN])
def test_the_published_weights_derain_an_image(kind, repository):
    data = repository.parent / 'shared' / 'data'
    weights = data / 'weights' / 'prenet' / f'{kind.__name__}_Rain100L.pth'
    images = [data / 'rain100l_test' / side / '5.webp' for side in ('input', 'target')]
    if not all(path.is_file() for path in (weights, *images)):
        pytest.skip('the published weights or the real images are not there')
    rainy, clean = (read_image(path)[80:240, 160:320] for path in images)
    net = kind()
    load_weights(net, weights)
    derained = to_uint8(restore(net, to_tensor(rainy)[None]))
    assert psnr_y(rainy, clean) < 23
    assert psnr_y(derained, clean) > 40


def literal(weights, rain, stages, blocks):
    """The network on its weights, stage by stage, every gate by itself."""

    def conv(x, name):
        return F.conv2d(x, weights[f'{name}.weight'], weights[f'{name}.bias'], padding=1)

    width = len(weights['conv0.0.bias'])
    x, images = rain, []
    h = c = rain.new_zeros(len(rain), width, *rain.shape[2:])
    for _ in range(stages):
        f = conv(torch.cat([rain, x], 1), 'conv0.0').clamp(min=0)
        if 'conv_i.0.weight' in weights:
            z = torch.cat([f, h], 1)
            i, forget, o = (1 / (1 + torch.exp(-conv(z, f'conv_{gate}.0'))) for gate in 'ifo')
            c = forget * c + i * torch.tanh(conv(z, 'conv_g.0'))
            f = h = o * torch.tanh(c)
        for k in range(1, blocks + 1):
            name = f'res_conv{k}' if 'res_conv2.0.weight' in weights else 'res_conv1'
            r = conv(conv(f, f'{name}.0').clamp(min=0), f'{name}.2').clamp(min=0)
            f = (r + f).clamp(min=0)
        x = conv(f, 'conv.0') + rain
        images.append(x)
    return images


@KINDS
@pytest.mark.parametrize('changes', [{}, {'stages': 1, 'blocks': 3}, {'stages': 5, 'width': 7}])
@pytest.mark.parametrize('shape', [(1, 3, 8, 8), (2, 3, 7, 5), (1, 3, 1, 2)])
def test_the_networks_and_their_gradients_equal_the_description(kind, changes, shape):
    net = tiny(kind, **changes).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.rand(shape, dtype=torch.float64)
    images, expected = net(x), literal(dict(net.named_parameters()), x, net.stages, net.blocks)
    assert len(images) == net.stages
    for image, other in zip(images, expected, strict=True):
        assert (image - other).abs().max() < 1e-12 * max(1.0, other.abs().max())
    assert images[0].min() < 0 or images[0].max() > 1  # so the twin has seen that nothing is clamped between stages
    parameters = list(net.parameters())
    gradients = [
        torch.autograd.grad(sum(o.square().sum() for o in outputs), parameters) for outputs in (images, expected)
    ]
    for gradient, other in zip(*gradients, strict=True):
        assert (gradient - other).abs().max() < 1e-10 * max(1.0, other.abs().max())


def test_a_block_can_only_add():
    block = ResidualBlock(6)
    f = torch.rand(2, 6, 8, 8)
    assert (block(f) >= f).all()
    assert (block(f) > f).any()
    nn.init.zeros_(block[2].weight), nn.init.zeros_(block[2].bias)
    assert torch.equal(block(-f), torch.zeros_like(f))  # there is a ReLU behind the sum, too


@KINDS
def test_every_stage_adds_to_the_rainy_image(kind):
    net = tiny(kind)
    nn.init.zeros_(net.conv[0].weight), nn.init.constant_(net.conv[0].bias, -0.5)
    x = torch.rand(1, 3, 8, 12)
    assert all(torch.equal(image, x - 0.5) for image in net(x))


@KINDS
def test_the_number_of_stages_does_not_touch_the_weights(kind):
    short, long = tiny(kind, stages=2), tiny(kind, stages=4)
    long.load_state_dict(short.state_dict(), strict=True)
    x = torch.rand(1, 3, 8, 8)
    images = long(x)
    assert len(images) == 4
    for early, image in zip(short(x), images, strict=False):
        assert torch.equal(early, image)
    assert not torch.equal(images[-1], images[-2])


@pytest.mark.parametrize(('kind', 'number'), [(PReNet, 5), (PReNet_r, 1), (PRN, 5), (PRN_r, 1)])
def test_the_recursive_networks_apply_one_block_as_often_as_the_others_have_blocks(kind, number):
    net, calls = kind(width=4, stages=2), []
    blocks = [module for module in net.modules() if isinstance(module, ResidualBlock)]
    for block in blocks:
        block.register_forward_hook(lambda module, inputs, output: calls.append(module))
    net(torch.rand(1, 3, 4, 4))
    assert len(blocks) == number
    assert calls == blocks * (10 // number)


@pytest.mark.parametrize('kind', [PReNet, PReNet_r])
def test_nothing_is_remembered_from_one_image_to_the_next(kind):
    net = tiny(kind)
    x, other = torch.rand(2, 1, 3, 8, 8)
    before = net(x)
    net(other)
    for first, second in zip(before, net(x), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize('kind', [PReNet, PReNet_r])
def test_the_memory_reaches_the_next_stage(kind):
    net = tiny(kind)
    x, other = torch.rand(1, 4, 8, 8), torch.rand(1, 4, 8, 8)
    h, c = net.lstm(x, None)
    for state in ((other, c), (h, other)):
        assert not torch.equal(net.lstm(x, state)[0], net.lstm(x, (h, c))[0])
    zeros = torch.zeros_like(x)
    for a, b in zip(net.lstm(x, None), net.lstm(x, (zeros, zeros)), strict=True):
        assert torch.equal(a, b)


@KINDS
def test_every_parameter_learns_from_the_last_image(kind):
    net = tiny(kind, width=8)
    net(torch.rand(2, 3, 16, 16))[-1].mean().backward()
    assert [k for k, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_the_first_stage_has_nothing_to_forget():
    net = tiny(PReNet, width=8, stages=1)
    net(torch.rand(2, 3, 16, 16))[-1].mean().backward()
    assert [k for k, p in net.named_parameters() if not p.grad.abs().sum() > 0] == ['conv_f.0.weight', 'conv_f.0.bias']


@pytest.mark.parametrize(
    ('kind', 'parameters', 'cost'),
    [
        (PReNet, 168_963, 66_249_031_680),
        (PReNet_r, 94_979, 66_249_031_680),
        (PRN, 95_107, 37_258_002_432),
        (PRN_r, 21_123, 37_258_002_432),
    ],
)
def test_the_published_networks_have_the_published_cost(kind, parameters, cost):
    counted = complexity(kind(), 256, 256)
    assert (counted.parameters, counted.macs, counted.outputs) == (parameters, cost, 6)


@KINDS
@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'stages': 0}, 'stages: 0 leaves nothing to pass; the published networks have 6'),
        ({'width': -1}, 'width: -1 leaves nothing to pass; the published networks have 32'),
        ({'blocks': 0}, 'blocks: 0 leaves nothing to pass; the published networks have 5'),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_published(kind, arguments, words):
    with pytest.raises(ValueError, match=words):
        tiny(kind, **arguments)


@KINDS
def test_mixed_precision_stays_near_float32(kind):
    net = tiny(kind, stages=6).eval()
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        exact = net(x)
        with torch.autocast('cpu', torch.bfloat16):
            rounded = net(x)
    for a, b in zip(exact, rounded, strict=True):
        assert b.dtype == torch.float32  # the rainy image is added in the precision of the input
        assert 0 < (a - b).abs().max() < 0.02
