"""DGUNet and DGUNet+ against the published numbers and a literal twin on their state dicts."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ddsa_arch.archs.blocks import subspace
from ddsa_arch.archs.blocks.hin_unet import HalfInstanceNorm
from ddsa_arch.archs.blocks.subspace import project
from ddsa_arch.archs.dgunet_arch import DGUNet, DGUNetPlus

KINDS = pytest.mark.parametrize('kind', [DGUNet, DGUNetPlus])
NAMES = [*(f'stage{k}' for k in range(1, 7)), 'stage7_final']


def published(net, x):
    return dict(zip(NAMES, net(x), strict=True))


def tiny(kind, **changes):
    torch.manual_seed(0)
    # no reduction: of two hidden channels of an attention, both would often be dead
    return kind(**({'n_feat': 8, 'scale_unetfeats': 4, 'depth': 1, 'reduction': 1} | changes))


@pytest.mark.parametrize(('stem', 'kind'), [('dgunet', DGUNet), ('dgunet_plus', DGUNetPlus)])
def test_the_published_outputs_are_reached(golden, stem, kind):
    golden(stem).check(kind(), published, run='gain0p7')


@pytest.mark.parametrize(('stem', 'kind'), [('dgunet', DGUNet), ('dgunet_plus', DGUNetPlus)])
def test_the_published_outputs_are_reached_where_they_grow_to_thousands(golden, stem, kind):
    golden(stem).check(kind(), published, run='plain', float32=False)


class Literal:
    """The networks written out on their state dicts: no modules, the projection as one N x N matrix."""

    def __init__(self, net):
        self.weights = net.state_dict()
        self.shared = isinstance(net, DGUNet)
        self.depth = net.depth

    def conv(self, x, name, **options):
        weight = self.weights[f'{name}.weight']
        options = {'padding': weight.shape[-1] // 2} | options
        return F.conv2d(x, weight, self.weights.get(f'{name}.bias'), **options)

    def prelu(self, x, name):
        return x.clamp(min=0) + self.weights[f'{name}.weight'] * x.clamp(max=0)

    def gradient_net(self, x, name):
        y = self.prelu(self.conv(x, f'{name}.body.0'), f'{name}.body.1')
        return x + self.conv(y, f'{name}.body.2')

    def shallow(self, x, name):
        x = self.conv(x, f'{name}.0')
        y = self.prelu(self.conv(x, f'{name}.1.body.0'), f'{name}.1.body.1')
        y = self.conv(y, f'{name}.1.body.2')
        gate = self.conv(y.flatten(2).mean(2)[..., None, None], f'{name}.1.CA.conv_du.0').clamp(min=0)
        return x + y * torch.sigmoid(self.conv(gate, f'{name}.1.CA.conv_du.2'))

    def block(self, x, name):
        y = self.conv(x, f'{name}.conv_1')
        if f'{name}.norm.weight' in self.weights:
            half = y.shape[1] // 2
            weight, bias = (self.weights[f'{name}.norm.{key}'] for key in ('weight', 'bias'))
            y = torch.cat([F.instance_norm(y[:, :half], weight=weight, bias=bias, eps=1e-5), y[:, half:]], 1)
        y = F.leaky_relu(self.conv(F.leaky_relu(y, 0.2), f'{name}.conv_2'), 0.2)
        return y + self.conv(x, f'{name}.identity')

    def encode(self, x, name, encoded, decoded):
        features = []
        for level in range(3):
            x = out = self.block(x, f'{name}.body.{level}')
            if encoded:
                s = self.conv(encoded[level], f'{name}.body.{level}.csff_enc')
                s = s + self.conv(decoded[2 - level], f'{name}.body.{level}.csff_dec')
                s = F.leaky_relu(s, 0.1)
                gate = torch.sigmoid(self.conv(s, f'{name}.body.{level}.phi'))
                x = out * gate + self.conv(s, f'{name}.body.{level}.gamma') + out
            features.append(x)
            x = self.conv(x, f'{name}.body.{level}.downsample', stride=2, padding=1)
        return [*features, self.block(x, f'{name}.body.3')]

    def decode(self, encoded, name):
        x, features = encoded[3], []
        for i in range(3):
            up = f'{name}.body.{i}.up'
            x = F.conv_transpose2d(x, self.weights[f'{up}.weight'], self.weights[f'{up}.bias'], stride=2)
            skip = self.conv(encoded[2 - i], f'{name}.skip_conv.{i}')
            x = self.block(torch.cat([x, skip], 1), f'{name}.body.{i}.conv_block')
            features.append(x)
        return features

    def merge(self, x, bridge, name):
        v = self.conv(torch.cat([x, bridge], 1), f'{name}.subnet').flatten(2)
        bridge = torch.stack([literal_projection(b, w) for b, w in zip(bridge, v, strict=True)])
        return self.conv(torch.cat([x, bridge], 1), f'{name}.conv_block') + x

    def prefix(self, k):
        """Where stage k keeps its parts, and by which number."""
        return ('basic.', 2) if self.shared and 1 < k <= self.depth + 1 else ('', k)

    def start(self, s, y, k):
        """The gradient step of stage k and the shallow features of its result."""
        prefix, n = self.prefix(k)
        if self.shared and k == self.depth + 2:
            n = 7  # the published number of the last stage, whatever the depth
        error = self.gradient_net(s, f'{prefix}phi_{n - 1}') - y
        x = s - self.weights[f'{prefix}r{n - 1}'] * self.gradient_net(error, f'{prefix}phit_{n - 1}')
        return x, self.shallow(x, f'{prefix}shallow_feat{n}')

    def __call__(self, y):
        s, f, encoded, decoded, images = y, None, None, None, []
        for k in range(1, self.depth + 2):
            prefix, n = self.prefix(k)
            x, features = self.start(s, y, k)
            if k > 1:
                features = self.merge(features, f, f'{prefix}merge{n - 1}{n}')
            encoded = self.encode(features, f'{prefix}stage{n}_encoder', encoded, decoded)
            decoded = self.decode(encoded, f'{prefix}stage{n}_decoder')
            sam = f'{prefix}sam{n}{n + 1}'
            s = self.conv(decoded[2], f'{sam}.conv2') + x
            f = self.conv(decoded[2], f'{sam}.conv1') + decoded[2]
            images.append(s)
        _, features = self.start(s, y, self.depth + 2)
        if self.shared:
            features = self.conv(torch.cat([features, f], 1), 'concat67')
        else:
            features = self.merge(features, f, f'merge{self.depth + 1}{self.depth + 2}')
        return [*images, self.conv(features, 'tail') + y]


def literal_projection(x, v):
    """x of (C, H, W) times P = V^T (V V^T)^-1 V with V of (r, N)."""
    v = v / (1e-6 + v.abs().sum(1, keepdim=True))
    p = v.T @ torch.linalg.inv(v @ v.T) @ v  # (N, N)
    return (x.flatten(1) @ p).view(x.shape)


@KINDS
@pytest.mark.parametrize('changes', [{'depth': 2}, {'scale_unetfeats': 3, 'kernel_size': 5, 'bias': True}])
@pytest.mark.parametrize('shape', [(1, 3, 16, 16), (2, 3, 16, 24)])
def test_the_networks_equal_their_description(kind, changes, shape):
    net = tiny(kind, **changes).double()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:  # step sizes, slopes, norms and biases away from where they start
                parameter += 0.1 * torch.randn_like(parameter)
        x = torch.rand(shape, dtype=torch.float64)
        outputs, expected = net(x), Literal(net)(x)
    assert len(outputs) == net.depth + 2
    for a, b in zip(outputs, expected, strict=True):
        assert (a - b).abs().max() < 1e-9 * max(1.0, b.abs().max())


def test_the_projection_is_the_matrix_of_the_paper():
    x, v = torch.randn(2, 5, 6, 4, dtype=torch.float64), torch.randn(2, 7, 6, 4, dtype=torch.float64)
    expected = torch.stack([literal_projection(a, b.flatten(1)) for a, b in zip(x, v, strict=True)])
    assert (project(x, v) - expected).abs().max() < 1e-12
    assert (project(project(x, v), v) - expected).abs().max() < 1e-12


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
def test_basis_images_that_depend_on_each_other_project_onto_what_they_span(dtype, tolerance):
    x, v = torch.randn(2, 5, 8, 8, dtype=dtype), torch.randn(2, 4, 8, 8, dtype=dtype)
    dependent = torch.cat([v, -2 * v, v[:, :1] + v[:, 1:2], torch.zeros_like(v[:, :1])], dim=1).requires_grad_()
    projected = project(x, dependent)
    assert (projected - project(x, v)).abs().max() < tolerance
    projected.square().sum().backward()
    assert dependent.grad.isfinite().all()


def test_a_basis_of_zeros_projects_onto_zero():
    basis = torch.zeros(1, 4, 8, 8, requires_grad=True)
    projected = project(torch.rand(1, 3, 8, 8), basis)
    assert torch.equal(projected, torch.zeros(1, 3, 8, 8))
    projected.sum().backward()
    assert basis.grad.isfinite().all()


def test_a_dependent_basis_leaves_the_others_of_its_batch_as_they_are():
    x, v = torch.randn(2, 5, 8, 8), torch.randn(2, 4, 8, 8)
    v[1] = v[1, :1]
    assert torch.equal(project(x, v)[:1], project(x[:1], v[:1]))


@pytest.fixture
def gram_matrices(monkeypatch):
    """The Gram matrices that are solved from here on."""
    seen, solve = [], subspace.solve_gram
    monkeypatch.setattr(subspace, 'solve_gram', lambda gram, values: seen.append(gram) or solve(gram, values))
    return seen


@KINDS
def test_an_image_of_one_colour_is_restored_with_a_true_inverse(kind, gram_matrices):
    net = kind().eval()
    with torch.no_grad():
        for level in (0.0, 0.5, 1.0):
            x = torch.full((1, 3, 32, 32), level)
            outputs, exact = net(x), net.double()(x.double())
            net.float()
            for a, b in zip(outputs, exact, strict=True):
                assert (a - b).abs().max() < 1e-3
    assert torch.stack([torch.linalg.cond(gram.double()) for gram in gram_matrices]).max() < 1e6
    assert all((torch.linalg.cholesky_ex(gram).info == 0).all() for gram in gram_matrices)  # so there was no ridge


@KINDS
def test_the_smallest_image_is_restored(kind):
    assert all(image.isfinite().all() for image in tiny(kind)(torch.rand(1, 3, 8, 8)))  # one pixel at the bottom


@KINDS
def test_the_inverse_is_taken_in_float32_under_mixed_precision(kind, gram_matrices):
    net = tiny(kind).eval()
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        exact = net(x)
        with torch.autocast('cpu', torch.bfloat16):
            rounded = net(x)
        net.double()(x.double())
    single, mixed, double = (gram_matrices[i * len(gram_matrices) // 3].dtype for i in range(3))
    assert (single, mixed, double) == (torch.float32, torch.float32, torch.float64)
    for a, b in zip(exact, rounded, strict=True):
        assert b.dtype == torch.float32
        assert 0 < (a - b).abs().max() < 0.1


@pytest.mark.parametrize('channels', [6, 7])
def test_half_of_the_channels_is_normalised(channels):
    net = HalfInstanceNorm(channels).double()
    nn.init.normal_(net.weight), nn.init.normal_(net.bias)
    x = torch.randn(2, channels, 5, 4, dtype=torch.float64)
    out = net(x)
    for b in range(2):
        for c in range(channels):
            image = x[b, c]
            if c < channels // 2:
                deviation = torch.sqrt(((image - image.mean()) ** 2).mean() + 1e-5)
                image = (image - image.mean()) / deviation * net.weight[c] + net.bias[c]
            assert (out[b, c] - image).abs().max() < 1e-12
    assert torch.equal(net(x[:, :, :1, :1])[0, : channels // 2, 0, 0], net.bias)


@KINDS
def test_the_last_stage_adds_to_the_input(kind):
    net = tiny(kind)
    net.tail.weight.data.zero_()
    x = torch.rand(1, 3, 16, 24)
    outputs = net(x)
    assert torch.equal(outputs[-1], x)
    assert not torch.equal(outputs[-2], x)


def slopes(net):
    return [m for m in net.modules() if isinstance(m, nn.PReLU)]  # modules() names a shared module once


@pytest.mark.parametrize(
    ('kind', 'names'),
    [
        (DGUNet, {'phi': 6, 'shallow_feat': 2, 'basic.shallow_feat': 1}),
        (DGUNetPlus, {'phi': 14, 'shallow_feat': 7}),
    ],
)
def test_slopes_are_shared_as_published(kind, names):
    net = kind()
    state = net.state_dict()
    groups = {}
    for key in state:
        if key.endswith('body.1.weight') and state[key].shape == (1,):
            groups.setdefault(state[key].data_ptr(), []).append(key)
    assert sorted(len(keys) for keys in groups.values()) == sorted(names.values())
    for keys in groups.values():
        assert len({'phi' in key for key in keys}) == 1
    assert [m.weight.item() for m in slopes(net)] == [0.25] * len(names)


@KINDS
def test_two_networks_of_one_process_have_slopes_of_their_own(kind):
    first, second = tiny(kind), tiny(kind)
    untouched = copy.deepcopy(second.state_dict())
    for slope in slopes(first):
        slope.weight.data.fill_(0.9)
    assert all(torch.equal(v, untouched[k]) for k, v in second.state_dict().items())
    assert len(slopes(copy.deepcopy(first))) == len(slopes(first))


def test_every_parameter_but_the_unused_one_learns():
    for kind, unused in ((DGUNet, ['basic.concat12.weight']), (DGUNetPlus, [])):
        net = tiny(kind)
        net(torch.rand(2, 3, 16, 16))[-1].mean().backward()  # the last output reaches all of them
        assert [k for k, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == unused
        assert [k for k, p in net.named_parameters() if not p.requires_grad] == unused


def test_the_shared_stage_can_be_passed_any_number_of_times():
    nets = [tiny(DGUNet, depth=depth) for depth in (1, 3)]
    assert nets[0].state_dict().keys() == nets[1].state_dict().keys()
    assert [len(net(torch.rand(1, 3, 8, 8))) for net in nets] == [3, 5]


@KINDS
def test_steps_start_at_one_half(kind):
    net = kind()
    steps = {k: v.item() for k, v in net.named_parameters() if k.split('.')[-1] in {f'r{i}' for i in range(7)}}
    assert set(steps.values()) == {0.5}
    assert len(steps) == (3 if kind is DGUNet else 7)


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


@pytest.mark.parametrize(
    ('kind', 'parameters', 'cost'),
    [(DGUNet, 3_661_912, 193_392_383_456), (DGUNetPlus, 12_176_107, 193_364_071_904)],
)
def test_the_published_networks_have_the_published_cost(kind, parameters, cost, monkeypatch):
    monkeypatch.setattr(subspace, 'project', lambda x, basis: x)  # has no convolution, and needs numbers
    with torch.device('meta'):
        net = kind()
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert products(net, 1, 3, 256, 256) == cost


@KINDS
@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'depth': 0}, 'depth: 0 leaves no stage between the first and the last'),
        ({'kernel_size': 2}, 'kernel_size: 2 cannot keep the size'),
        ({'reduction': 9}, 'reduction: 9 leaves no hidden channel of 8; take one between 1 and 8'),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(kind, arguments, words):
    with pytest.raises(ValueError, match=words):
        tiny(kind, **arguments)
