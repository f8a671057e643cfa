"""UMRL against the published numbers and a literal twin on its state dict."""

import copy

import pytest
import torch
import torch.nn.functional as F

from ddsa_arch.archs.blocks.dense import Transition
from ddsa_arch.archs.complexity import complexity
from ddsa_arch.archs.umrl_arch import UMRL
from ddsa_arch.losses.umrl_loss import UMRLLoss
from ddsa_arch.models.restore import Recipe, restore

UNUSED = {
    'batchnorm20.weight', 'batchnorm20.bias', 'batchnorm1.weight', 'batchnorm1.bias',
    'conf_res.conv_refin.weight', 'conf_res.conv_refin.bias',
}  # fmt: skip


@pytest.mark.parametrize('run', ['plain', 'trainmode'])
def test_the_published_outputs_are_reached(golden, run):
    golden('umrl').check(UMRL(), lambda net, x: net.published_outputs(x), run=run)


def build(**arguments):
    """A network whose batch norms have seen something."""
    torch.manual_seed(0)
    net = UMRL(**arguments).eval()
    for name, value in net.state_dict().items():
        if 'bn' in name and value.ndim == 1:
            torch.nn.init.uniform_(value, *((-0.3, 0.3) if name.endswith(('mean', 'bias')) else (0.7, 1.3)))
    return net


class Literal:
    """The network written out on its state dict, after the tables of the release's description."""

    trunk = (  # output, from, number of the block, resampling
        ('x1', ('x',), '1', 'down'), ('x2', ('x1',), '2', 'down'), ('x3', ('x2',), '3', 'down'),
        ('x3a', ('x3',), '3_1', 'down'), ('x3b', ('x3a',), '3_2', 'up'), ('x4', ('x3b', 'x3'), '4', 'up'),
        ('x5', ('x4', 'x2', 'g_q'), '5', 'up'), ('x6a', ('x5', 'x1', 'g_h'), '6', 'up'),
        ('x6', ('x6a',), '6_1', 'same'),
    )  # fmt: skip

    def __init__(self, net):
        self.weights = net.state_dict()
        self.training = net.training

    def conv(self, x, name):
        weight = self.weights[f'{name}.weight']
        return F.conv2d(x, weight, self.weights.get(f'{name}.bias'), padding=weight.shape[-1] // 2)

    def bn_relu(self, x, name):
        keys = ('weight', 'bias', 'running_mean', 'running_var')
        weight, bias, mean, variance = (self.weights[f'{name}.{key}'].view(-1, 1, 1) for key in keys)
        if self.training:
            mean = x.mean((0, 2, 3), keepdim=True)
            variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
        return ((x - mean) / torch.sqrt(variance + 1e-5) * weight + bias).clamp(min=0)

    def block(self, x, name):
        y = self.conv(self.bn_relu(x, f'{name}.bn1'), f'{name}.conv1')
        return torch.cat([x, self.conv(self.bn_relu(y, f'{name}.bn2'), f'{name}.conv2')], 1)

    def transition(self, x, name, mode='same'):
        weight = self.weights[f'{name}.conv1.weight'][..., 0, 0]  # (in, out)
        x = torch.einsum('bihw,io->bohw', self.bn_relu(x, f'{name}.bn1'), weight)
        if mode == 'down':
            return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3) if mode == 'up' else x

    def tail(self, x, first, second):
        return self.conv(F.leaky_relu(self.conv(x, first), 0.2), second)

    def residual(self, *features):
        x = torch.cat(features, 1)
        for i in (1, 2, 3):
            x = self.transition(self.block(x, f'res_est.conv{i}'), f'res_est.trans_block{i}')
        return torch.tanh(self.tail(x, 'res_est.conv_refin', 'res_est.refine3'))

    def confidence(self, *features):
        x = self.conv(torch.cat(features, 1), 'conf_res.conv1')
        for i in (2, 3):
            x = self.transition(self.block(x, f'conf_res.conv{i}'), f'conf_res.trans_block{i}')
        return torch.sigmoid(self.conv(x, 'conf_res.refine3'))

    def clean(self, x, residual):
        return torch.tanh(self.tail(x - residual, 'refineclean1', 'refineclean2'))

    def __call__(self, x):
        y = {'x': x}
        for name, inputs, number, mode in self.trunk:
            features = self.block(torch.cat([y[i] for i in inputs], 1), f'dense_block{number}')
            y[name] = self.transition(features, f'trans_block{number}', mode)
            for scale, fine, coarse in (('q', 'x4', 'x2'), ('h', 'x5', 'x1')):
                if name == fine:
                    y[f'r_{scale}'] = self.residual(y[fine], y[coarse])
                    y[f'c_{scale}'] = self.confidence(y[fine], y[f'r_{scale}'])
                    y[f'g_{scale}'] = y[f'r_{scale}'] * y[f'c_{scale}']
        residual = torch.tanh(self.tail(y['x6'], 'conv_refin', 'refine3'))
        half, quarter = (F.interpolate(x, scale_factor=factor, mode='nearest') for factor in (0.5, 0.25))
        return {
            'residual': residual,
            'clean': self.clean(x, residual),
            'clean_quarter': self.clean(quarter, y['r_q']),
            'clean_half': self.clean(half, y['r_h']),
            'conf_quarter': y['c_q'],
            'conf_half': y['c_h'],
            'conf_full': self.confidence(y['x6'], y['x6'], residual),
        }


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('shape', [(2, 3, 48, 32), (1, 3, 80, 48)])
def test_the_network_equals_its_description(shape, training):
    net = build().double().train(training)
    x = 2 * torch.rand(shape, dtype=torch.float64) - 1
    with torch.no_grad():
        expected, outputs = Literal(net)(x), net.published_outputs(x)
    assert outputs.keys() == expected.keys()
    for name, value in expected.items():
        assert value.std() > 1e-3, name  # what is compared is no constant
        assert (outputs[name] - value).abs().max() < 1e-9, name


def test_images_in_0_to_1_come_from_the_coarsest_to_the_finest_with_the_confidences_before_them():
    net = build(return_confidence=True)
    rain = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        outputs, published = net(rain), net.published_outputs(2 * rain - 1)
        net.return_confidence = False
        images = net(rain)
    assert [tuple(o.shape[-2:]) for o in outputs] == [(8, 12), (16, 24), (32, 48)] * 2
    for output, scale in zip(outputs[:3], ('quarter', 'half', 'full'), strict=True):
        assert torch.equal(output, published[f'conf_{scale}'])
        assert 0 < output.min() < output.max() < 1
    for output, name in zip(outputs[3:], ('clean_quarter', 'clean_half', 'clean'), strict=True):
        assert torch.equal(output, (published[name] + 1) / 2)
        assert 0 < output.min() < output.max() < 1
    assert len(images) == 3
    assert all(torch.equal(a, b) for a, b in zip(images, outputs[3:], strict=True))


def test_the_published_loss_takes_what_the_network_gives():
    net = build(return_confidence=True).train()
    loss = UMRLLoss()(net(torch.rand(2, 3, 32, 32)), torch.rand(2, 3, 32, 32))
    loss.backward()
    assert loss.isfinite()
    assert {k for k, p in net.named_parameters() if p.grad is None} == UNUSED


def test_every_parameter_but_the_unused_ones_learns_from_the_last_image():
    net = build().train()
    net(torch.rand(2, 3, 32, 32))[-1].mean().backward()
    assert {k for k, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0} == UNUSED
    assert {k for k, p in net.named_parameters() if not p.requires_grad} == UNUSED
    assert sum(p.numel() for p in net.parameters() if not p.requires_grad) == 2_362


@pytest.mark.parametrize('return_confidence', [False, True])
def test_all_scales_share_one_estimator_of_each_kind(return_confidence):
    net, calls = build(return_confidence=return_confidence), []
    for name in ('res_est', 'conf_res'):
        getattr(net, name).register_forward_hook(lambda *args, name=name: calls.append(name))
    net(torch.rand(1, 3, 16, 16))
    assert calls == ['res_est', 'conf_res'] * 2 + ['conf_res'] * return_confidence  # the last one only where asked for


def test_the_published_network_has_the_published_cost():
    found = complexity(UMRL(return_confidence=True))
    assert found.parameters == 984_356
    assert found.macs == 16_307_060_736


def test_the_statistics_of_the_image_itself_are_those_of_training_mode():
    net = build()
    x = torch.rand(2, 3, 32, 32)
    before = copy.deepcopy(net.state_dict())
    out = restore(net, x, Recipe(batch_statistics=True))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not torch.allclose(out, restore(net, x), atol=1e-3)
    net.train()
    with torch.no_grad():
        expected = torch.cat([net(image[None])[-1] for image in x])
    assert (out - expected).abs().max() < 1e-6


def test_an_image_depends_neither_on_its_neighbours_nor_on_earlier_calls():
    net = build(return_confidence=True).double()
    x = torch.rand(3, 3, 32, 16, dtype=torch.float64)
    with torch.no_grad():
        together, alone, again = net(x), net(x[1:2]), net(x)
    for a, b, c in zip(together, alone, again, strict=True):
        assert (a[1:2] - b).abs().max() < 1e-12
        assert torch.equal(a, c)


@pytest.mark.parametrize(('training', 'tolerance'), [(False, 0.002), (True, 0.03)])
def test_mixed_precision_rounds_features_and_leaves_images_confidences_and_statistics_in_float32(training, tolerance):
    net = build(return_confidence=True).train(training)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        exact = copy.deepcopy(net)(x)
        with torch.autocast('cpu', torch.bfloat16):
            rounded = net(x)
    assert {o.dtype for o in rounded} == {v.dtype for v in net.state_dict().values() if v.ndim} == {torch.float32}
    for a, b in zip(exact, rounded, strict=True):
        assert 0 < (a - b).abs().mean() < tolerance


def test_an_unknown_resampling_is_refused_with_what_is_allowed():
    with pytest.raises(ValueError, match="resample: 'half' is not known; choose one of 'same', 'down', 'up'"):
        Transition(4, 4, 'half')
