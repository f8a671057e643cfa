"""DID-MDN against the published numbers and literal twins on the state dicts."""

import re
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from ddsa_arch.archs.complexity import complexity
from ddsa_arch.archs.didmdn_arch import DIDMDN, DIDMDNChain, DIDMDNResidual, RainDensityClassifier, join_published
from ddsa_arch.models.restore import Recipe, restore

SMALL = 56  # side of a classifier of 0.8 million parameters
DERAIN_RUNS = [f'derain_label{label}{mode}' for label in (1, 2, 3) for mode in ('', '_trainmode')]
OLD_HEAD = ['batchnorm1', 'batchnorm20', 'conv_refin', 'refine3']
LEVEL_MAPS = ['conv21', 'conv31', 'conv41', 'conv51', 'conv61']
POOLS = ['conv1010', 'conv1020', 'conv1030', 'conv1040']
UNUSED = {
    DIDMDN: {
        'batchnorm1', 'batchnorm20', *(f'dense{i}.{name}' for i in range(3) for name in LEVEL_MAPS),
        *(f'dense{i}.{name}' for i in (1, 2) for name in OLD_HEAD),
    },
    DIDMDNResidual: {
        'batchnorm1', 'batchnorm20', *(f'dense{i}.{name}' for i in (1, 2) for name in OLD_HEAD + POOLS),
        *(f'{kind}_block{i}' for i in range(1, 7) for kind in ('dense', 'trans')),
    },
}  # fmt: skip
NETWORKS = pytest.mark.parametrize('kind', [DIDMDN, DIDMDNResidual])


@pytest.mark.parametrize('run', DERAIN_RUNS)
def test_the_published_outputs_of_the_deraining_network_are_reached(golden, run):
    label = int(re.search(r'label(\d)', run)[1])
    golden('didmdn_derain').check(DIDMDN(label), lambda net, x: net.published_outputs(x), run=run)


@pytest.mark.parametrize('run', ['residual_label0', 'residual_label0_trainmode'])
def test_the_published_outputs_of_the_residual_network_are_reached(golden, run):
    golden('didmdn_residual').check(DIDMDNResidual(), lambda net, x: {'residual': 2 * net((x + 1) / 2) - 1}, run=run)


@pytest.mark.slow  # 65 million parameters are drawn and computed with in double precision
@pytest.mark.parametrize('run', ['classifier', 'classifier_trainmode'])
def test_the_published_outputs_of_the_classifier_are_reached(golden, run):
    golden('didmdn_classifier').check(RainDensityClassifier(), lambda net, x: {'logits': net(x)}, run=run)


def test_every_published_run_is_asked_for(golden):
    assert sorted(golden('didmdn_derain').runs()) == sorted(DERAIN_RUNS)
    assert sorted(golden('didmdn_residual').runs()) == ['residual_label0', 'residual_label0_trainmode']
    assert sorted(golden('didmdn_classifier').runs()) == ['classifier', 'classifier_trainmode']


def stirred(net):
    """The network with batch norms that have seen something, to be evaluated in double precision."""
    for name, value in net.state_dict().items():
        if ('bn' in name or 'feature.1' in name) and value.ndim == 1:
            torch.nn.init.uniform_(value, *((-0.3, 0.3) if name.endswith(('mean', 'bias')) else (0.7, 1.3)))
    return net.eval().double()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Literal:
    """A network written out on its state dict, after the tables of the release's description."""

    def __init__(self, net, prefix=''):
        self.weights = {k.removeprefix(prefix): v for k, v in net.state_dict().items() if k.startswith(prefix)}

    def conv(self, x, name):
        weight = self.weights[f'{name}.weight']
        return F.conv2d(x, weight, self.weights.get(f'{name}.bias'), padding=weight.shape[-1] // 2)

    def bn(self, x, name):
        keys = ('weight', 'bias', 'running_mean', 'running_var')
        weight, bias, mean, variance = (self.weights[f'{name}.{key}'].view(-1, 1, 1) for key in keys)
        return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias

    def level(self, x, stream, number, mode):
        block, transition = f'{stream}.dense_block{number}', f'{stream}.trans_block{number}'
        y = self.conv(self.bn(x, f'{block}.bn1').clamp(min=0), f'{block}.conv1')
        x = torch.cat([x, self.conv(self.bn(y, f'{block}.bn2').clamp(min=0), f'{block}.conv2')], 1)
        weight = self.weights[f'{transition}.conv1.weight'][..., 0, 0]  # (in, out)
        x = torch.einsum('bihw,io->bohw', self.bn(x, f'{transition}.bn1').clamp(min=0), weight)
        if mode == 'down':
            return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3) if mode == 'up' else x

    def head(self, streams, x, labels, label_channels):
        """tanh of the head on [stream 0, image, stream 1, stream 2, label map]."""
        maps = torch.stack([torch.full((label_channels, *x.shape[2:]), float(n), dtype=x.dtype) for n in labels])
        f = F.leaky_relu(self.conv(torch.cat([streams[0], x, *streams[1:], maps], 1), 'conv_refin'), 0.2)
        pyramid = []
        for name, size in (('conv1010', 32), ('conv1020', 16), ('conv1030', 8), ('conv1040', 4)):
            p = F.leaky_relu(self.conv(F.avg_pool2d(f, size), name), 0.2)
            rows, columns = (torch.arange(n) * m // n for n, m in zip(x.shape[2:], p.shape[2:], strict=True))
            pyramid.append(p[:, :, rows][:, :, :, columns])  # the nearest
        return torch.tanh(self.conv(torch.cat([*pyramid, f], 1), 'refine3'))

    def residual(self, x, labels):
        modes = {
            'dense0': ('same',) * 6,
            'dense1': ('down', 'same', 'same', 'same', 'same', 'up'),
            'dense2': ('down', 'down', 'same', 'same', 'up', 'up'),
        }
        streams = []
        for name, (m1, m2, m3, m4, m5, m6) in modes.items():
            x1 = self.level(x, name, 1, m1)
            x2 = self.level(x1, name, 2, m2)
            x4 = self.level(self.level(x2, name, 3, m3), name, 4, m4) + x2
            streams.append(self.level(self.level(x4, name, 5, m5) + x1, name, 6, m6))
        return {'residual': self.head(streams, x, labels, label_channels=4)}

    def derain(self, x, labels):
        modes = {
            'dense0': ('down', 'same', 'same', 'same', 'same', 'up'),
            'dense1': ('down', 'down', 'same', 'same', 'up', 'up'),
            'dense2': ('down', 'down', 'down', 'up', 'up', 'up'),
        }
        streams = []
        for name, (m1, m2, m3, m4, m5, m6) in modes.items():
            x1 = self.level(x, name, 1, m1)
            x2 = self.level(x1, name, 2, m2)
            x4 = self.level(self.level(x2, name, 3, m3), name, 4, m4)
            x5 = self.level(torch.cat([x4, x2], 1), name, 5, m5)
            x6 = self.level(torch.cat([x5, x1], 1), name, 6, m6)
            e = F.leaky_relu(self.conv(x1, f'{name}.conv11'), 0.2).repeat_interleave(2, 2).repeat_interleave(2, 3)
            streams.append(torch.cat([x6, e, e, e, e, e, x], 1))
        residual = self.head(streams, x, labels, label_channels=8)
        clean = F.leaky_relu(self.conv(x - residual, 'refineclean1'), 0.2)
        return {'residual': residual, 'clean': torch.tanh(self.conv(clean, 'refineclean2'))}

    def classify(self, x):
        x = self.bn(self.conv(x, 'feature.0'), 'feature.1').clamp(min=0)
        x = self.conv(x, 'conv16').clamp(min=0)
        n = x.shape[-1] // 7
        x = x[..., : 7 * n, : 7 * n].unflatten(3, (n, 7)).unflatten(2, (n, 7)).mean((3, 5)).flatten(1)
        for name in ('dense_classifier', 'dense_classifier1'):
            x = (x if name == 'dense_classifier' else x.clamp(min=0)) @ self.weights[f'{name}.weight'].T
            x = x + self.weights[f'{name}.bias']
        return x


@pytest.mark.parametrize('shape', [(2, 3, 32, 64), (1, 3, 72, 40)])  # a border falls out of the pools of 72 x 40
def test_the_deraining_network_equals_its_description(shape):
    net = stirred(DIDMDN())
    x = 2 * torch.rand(shape, dtype=torch.float64) - 1
    labels = [0, 3][: len(x)]
    with torch.no_grad():
        expected, outputs = Literal(net).derain(x, labels), net.published_outputs(x, torch.tensor(labels))
        image = net((x + 1) / 2, torch.tensor(labels))
    for name, value in expected.items():
        assert value.std() > 1e-3, name
        assert (outputs[name] - value).abs().max() < 1e-9, name
    assert (image - (expected['clean'] + 1) / 2).abs().max() < 1e-9


@pytest.mark.parametrize('shape', [(2, 3, 32, 64), (1, 3, 72, 40)])
def test_the_residual_network_equals_its_description(shape):
    net = stirred(DIDMDNResidual())
    rain = torch.rand(shape, dtype=torch.float64)
    labels = [0, 3][: len(rain)]
    with torch.no_grad():
        expected, image = Literal(net).residual(2 * rain - 1, labels)['residual'], net(rain, torch.tensor(labels))
    assert expected.std() > 1e-3
    assert (image - (expected + 1) / 2).abs().max() < 1e-9


@pytest.mark.parametrize('size', [SMALL, 60])  # 60 is no multiple of 7
def test_the_classifier_equals_its_description(size):
    net = stirred(RainDensityClassifier(size))
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        logits, expected = net(x), Literal(net).classify(x)
    assert logits.shape == (2, 4)
    assert expected.std() > 1e-3
    assert (logits - expected).abs().max() < 1e-9


def test_the_published_classifier_takes_512_pixels_and_its_parameters_stand_in_one_layer():
    with torch.device('meta'):
        net = RainDensityClassifier()
    assert net(torch.empty(2, 3, 512, 512, device='meta')).shape == (2, 4)
    assert net.dense_classifier.weight.shape == (512, 127_896)
    parameters = sum(p.numel() for p in net.parameters())
    assert parameters == 65_501_084
    assert net.dense_classifier.weight.numel() > 0.99 * parameters
    assert not hasattr(net, 'size_multiple')  # which would make it a restoration network
    with pytest.raises(ValueError, match='the classifier takes 512 x 512, not 256 x 512; resize first'):
        net(torch.empty(1, 3, 256, 512, device='meta'))


def test_the_classifier_has_the_published_keys(golden):
    with torch.device('meta'):
        net = RainDensityClassifier()
    golden('didmdn_classifier').check_parameters(net)


@pytest.mark.parametrize(
    ('kind', 'parameters', 'cost', 'unused'),
    [
        # the release computes the map e of each stream five times, of which four are left out here
        (DIDMDN, 372_839, 7_233_260_928 - 4 * (4 + 8 + 8) * 9 * 128 * 128, 7_603),
        (DIDMDNResidual, 182_947, 2_650_908_928, 79_338),
    ],
)
def test_the_published_networks_have_the_published_cost(kind, parameters, cost, unused):
    net = kind()
    found = complexity(net)
    assert (found.parameters, found.macs) == (parameters, cost)
    assert sum(p.numel() for p in net.parameters() if not p.requires_grad) == unused


@NETWORKS
def test_every_parameter_but_the_unused_ones_learns(kind):
    net = kind()
    net(torch.rand(2, 3, 32, 32)).mean().backward()

    def modules(names):
        return {re.sub(r'(\.(bn|conv)[12])?\.(weight|bias)$', '', name) for name in names}

    frozen = {k for k, p in net.named_parameters() if not p.requires_grad}
    assert modules(frozen) == UNUSED[kind]
    assert {k for k, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0} == frozen


@NETWORKS
def test_a_label_of_the_call_replaces_that_of_the_constructor(kind):
    net = stirred(kind(label=3))
    x = torch.rand(2, 3, 32, 40, dtype=torch.float64)
    with torch.no_grad():
        outputs = [net(x, label) for label in range(5)]
        assert torch.equal(net(x), outputs[3])
        mixed = net(x, torch.tensor([4, 0]))
    assert all((a - b).abs().max() > 1e-4 for a, b in pairwise(outputs))
    assert (mixed[0] - outputs[4][0]).abs().max() < 1e-12
    assert (mixed[1] - outputs[0][1]).abs().max() < 1e-12


def test_labels_are_by_default_those_of_the_published_use():
    assert DIDMDN().label == 1
    assert DIDMDNResidual().label == 0


@NETWORKS
@pytest.mark.parametrize('label', [-1, 5, 1.5, 'heavy'])
def test_an_unknown_label_is_refused_with_what_is_allowed(kind, label):
    with pytest.raises(ValueError, match=rf'label: {label!r} is not known; choose 0 \(heavy\), 1 \(medium\)'):
        kind(label=label)
    with pytest.raises(ValueError, match='is not known'):
        kind()(torch.rand(1, 3, 32, 32), label)


@pytest.mark.parametrize('labels', [torch.tensor(1), torch.tensor([1]), torch.tensor([[1, 2]])])
def test_labels_are_one_number_for_each_image(labels):
    with pytest.raises(ValueError, match='for 2 images; give one number for each'):
        DIDMDN()(torch.rand(2, 3, 32, 32), labels)


def test_a_classifier_smaller_than_its_pool_is_refused():
    with pytest.raises(ValueError, match='size: 6 is smaller than a window of 7 pixels; the published one is 512'):
        RainDensityClassifier(6)


@NETWORKS
@pytest.mark.parametrize('size', [(1, 1), (24, 24), (37, 70)])
def test_padding_gives_a_size_that_the_network_takes(kind, size):
    rain = torch.rand(1, 3, *size)
    out = restore(kind(), rain)
    assert out.shape == rain.shape
    assert out.isfinite().all()


@NETWORKS
def test_the_sizes_of_the_release_can_be_had_as_well(kind):
    net = stirred(kind())
    rain = torch.rand(1, 3, 40, 72, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(restore(net, rain, Recipe(size_multiple=8)), net(rain))
    assert not torch.equal(restore(net, rain), net(rain))


def chain():
    """A small chain whose labels differ from image to image."""
    net = stirred(DIDMDNChain(classifier_size=SMALL))
    net.classifier.dense_classifier.weight.data *= 30
    net.classifier.dense_classifier1.weight.data *= 30
    return net


@pytest.mark.parametrize('size', [(64, 64), (32, 48)])  # larger and smaller than what the classifier takes
def test_the_chain_is_the_three_networks_one_after_the_other(size):
    net, seen = chain(), []
    net.classifier.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    rain = torch.rand(4, 3, *size, dtype=torch.float64) * torch.tensor([0.1, 0.4, 0.7, 1]).double().view(4, 1, 1, 1)
    residual, classifier, derain = (Literal(net, f'{name}.') for name in ('residual', 'classifier', 'derain'))
    layers, labels, images = [], [], []
    with torch.no_grad():
        clean = net(rain)
        for image in 2 * rain[:, None] - 1:
            layer = image - residual.residual(image, [0])['residual']
            layers.append(F.interpolate(layer, (SMALL, SMALL), mode='bilinear', antialias=True))
            labels.append(classifier.classify(layers[-1])[0].argmax().item() + 1)
            images.append((derain.derain(image, labels[-1:])['clean'] + 1) / 2)
        assert len(set(labels)) > 1
        assert net.labels(rain).tolist() == labels
    assert (seen[0] - torch.cat(layers)).abs().max() < 1e-9
    assert (clean - torch.cat(images)).abs().max() < 1e-9


def test_a_rain_layer_of_the_size_of_the_classifier_is_not_touched():
    net, seen = stirred(DIDMDNChain(classifier_size=64)), []
    net.classifier.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    rain = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        net(rain)
        assert torch.equal(seen[0], 2 * (rain - net.residual(rain, label=0)))


def test_the_three_published_files_make_a_state_dict_of_the_chain():
    parts = [stirred(part) for part in (DIDMDN(), DIDMDNResidual(), RainDensityClassifier(SMALL))]
    net = DIDMDNChain(classifier_size=SMALL).double()
    net.load_state_dict(join_published(*(part.state_dict() for part in parts)), strict=True)
    for part, name in zip(parts, ('derain', 'residual', 'classifier'), strict=True):
        state = getattr(net, name).state_dict()
        assert all(torch.equal(value, state[key]) for key, value in part.state_dict().items())


def test_only_the_deraining_network_of_the_chain_learns():
    net = chain().train()
    net(torch.rand(2, 3, 32, 32, dtype=torch.float64)).mean().backward()
    learns = {k for k, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert learns == {f'derain.{k}' for k, p in DIDMDN().named_parameters() if p.requires_grad}
    assert learns == {k for k, p in net.named_parameters() if p.requires_grad}


def test_the_published_chain_has_the_published_size():
    with torch.device('meta'):
        net = DIDMDNChain()
    assert net.classifier.size == 512
    assert sum(p.numel() for p in net.parameters()) == 66_056_870


MAKERS = pytest.mark.parametrize('make', [lambda: stirred(DIDMDN()), lambda: stirred(DIDMDNResidual()), chain])


@MAKERS
def test_an_image_depends_neither_on_its_neighbours_nor_on_earlier_calls(make):
    net = make()
    x = torch.rand(3, 3, 32, 64, dtype=torch.float64)
    with torch.no_grad():
        together, alone, again = net(x), net(x[1:2]), net(x)
    assert (together[1:2] - alone).abs().max() < 1e-12
    assert torch.equal(together, again)


@MAKERS
def test_the_statistics_of_the_image_itself_are_those_of_training_mode(make):
    net = make()
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    out = restore(net, x, Recipe(batch_statistics=True))
    assert (out - restore(net, x)).abs().max() > 1e-3
    net.train()
    with torch.no_grad():
        expected = torch.cat([net(image[None]) for image in x])
    assert (out - expected).abs().max() < 1e-9


@MAKERS
@pytest.mark.parametrize('training', [False, True])
def test_mixed_precision_rounds_features_and_leaves_images_and_statistics_in_float32(make, training):
    net = make().float().train(training)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        exact = net(x)
        with torch.autocast('cpu', torch.bfloat16):
            rounded = net(x)
    assert {v.dtype for v in net.state_dict().values() if v.ndim} == {rounded.dtype} == {torch.float32}
    assert 0 < (exact - rounded).abs().mean() < 0.02


def test_training_the_chain_leaves_the_other_two_networks_as_they_are():
    torch.manual_seed(0)
    chain = DIDMDNChain(classifier_size=56).train()
    before = {k: v.clone() for k, v in chain.state_dict().items()}
    chain(torch.rand(2, 3, 64, 64)).mean().backward()
    moved = {k.split('.')[0] for k, v in chain.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {'derain'}
    assert chain.derain.training
