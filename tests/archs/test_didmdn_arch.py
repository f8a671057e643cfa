"""DID-MDN against the outputs of the published networks; of the classifier there is a literal twin as well."""

import re
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from ddsa_arch.archs.didmdn_arch import DIDMDN, DIDMDNChain, DIDMDNResidual, RainDensityClassifier, join_published
from ddsa_arch.models.restore import Recipe, restore

SMALL = 56  # side of a classifier of 0.8 million parameters
DERAIN_RUNS = [f'derain_label{label}{mode}' for label in (1, 2, 3) for mode in ('', '_trainmode')]
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


def literal_classifier(net, x):
    """The classifier written out on its state dict, after the table of the release's description."""
    weights = net.state_dict()
    x = F.conv2d(x, weights['feature.0.weight'], weights.get('feature.0.bias'), padding=1)
    keys = ('weight', 'bias', 'running_mean', 'running_var')
    scale, shift, mean, variance = (weights[f'feature.1.{key}'].view(-1, 1, 1) for key in keys)
    x = ((x - mean) / torch.sqrt(variance + 1e-5) * scale + shift).clamp(min=0)
    x = F.conv2d(x, weights['conv16.weight'], weights.get('conv16.bias'), padding=1).clamp(min=0)
    n = x.shape[-1] // 7
    x = x[..., : 7 * n, : 7 * n].unflatten(3, (n, 7)).unflatten(2, (n, 7)).mean((3, 5)).flatten(1)
    x = x @ weights['dense_classifier.weight'].T + weights['dense_classifier.bias']
    return x.clamp(min=0) @ weights['dense_classifier1.weight'].T + weights['dense_classifier1.bias']


@pytest.mark.parametrize('size', [SMALL, 60])  # 60 is no multiple of 7
def test_the_classifier_equals_its_description(size):
    net = stirred(RainDensityClassifier(size))
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        logits, expected = net(x), literal_classifier(net, x)
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
    layers, labels, images = [], [], []
    with torch.no_grad():
        clean = net(rain)
        for image in rain.split(1):
            layer = 2 * (image - net.residual(image, label=0))
            layers.append(F.interpolate(layer, (SMALL, SMALL), mode='bilinear', antialias=True))
            labels.append(net.classifier(layers[-1])[0].argmax().item() + 1)
            images.append(net.derain(image, labels[-1]))
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


def test_the_published_chain_has_the_published_size():
    with torch.device('meta'):
        net = DIDMDNChain()
    assert net.classifier.size == 512
    assert sum(p.numel() for p in net.parameters()) == 66_056_870


MAKERS = pytest.mark.parametrize('make', [lambda: stirred(DIDMDN()), lambda: stirred(DIDMDNResidual()), chain])


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


def test_training_the_chain_leaves_the_other_two_networks_as_they_are():
    torch.manual_seed(0)
    chain = DIDMDNChain(classifier_size=56).train()
    before = {k: v.clone() for k, v in chain.state_dict().items()}
    chain(torch.rand(2, 3, 64, 64)).mean().backward()
    moved = {k.split('.')[0] for k, v in chain.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {'derain'}
    assert chain.derain.training
