"""SEMI against a literal twin of its description."""

import copy

import pytest
import torch

from ddsa_arch.archs.complexity import complexity
from ddsa_arch.archs.semi_arch import SEMI, statistics_norm
from ddsa_arch.losses.semi_loss import SEMILoss
from ddsa_arch.models.restore import Recipe, restore
from ddsa_arch.ops.guided_filter import base_layer


def build(**arguments):
    """A small network in float64 whose biases, scales and shifts matter, as far as they can."""
    torch.manual_seed(0)
    net = SEMI(**{'channels': 4, 'units': 2} | arguments).double()
    for name, parameter in net.named_parameters():
        if 'scales' in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        elif 'kernels' not in name:
            torch.nn.init.uniform_(parameter, -0.5, 0.5)
    return net


def slow_conv(x, kernel, bias):
    """3x3, zeros beyond the border, one pixel after the other."""
    height, width = x.shape[-2:]
    y = torch.zeros(x.shape[0], kernel.shape[0], height, width, dtype=x.dtype)
    for row in range(height):
        for column in range(width):
            for a in (-1, 0, 1):
                for b in (-1, 0, 1):
                    if 0 <= row + a < height and 0 <= column + b < width:
                        y[:, :, row, column] += x[:, :, row + a, column + b] @ kernel[:, :, a + 1, b + 1].T
            y[:, :, row, column] += bias
    return y


def slow_norm(x, scale, shift, over_batch):
    out = torch.empty_like(x)
    for image in range(x.shape[0]):
        for channel in range(x.shape[1]):
            values = x[:, channel].flatten() if over_batch else x[image, channel].flatten()
            mean = sum(values.tolist()) / len(values)
            variance = sum((v - mean) ** 2 for v in values.tolist()) / len(values)
            out[image, channel] = (x[image, channel] - mean) / (variance + 1e-5) ** 0.5 * scale[channel]
            out[image, channel] += shift[channel]
    return out


def literal(net, image, branch, over_batch, units):
    """The description, with biases and all."""
    weights = {k: v.detach() for k, v in net.state_dict().items()}

    def layer(number, x):  # counted from 1, as in the description
        k = number - 1
        x = slow_conv(x, weights[f'kernels.{k}.weight'], weights[f'{branch}.biases.{k}'])
        return slow_norm(x, weights[f'{branch}.scales.{k}'], weights[f'{branch}.shifts.{k}'], over_batch)

    s = layer(1, image - base_layer(image)).clamp(min=0)
    for unit in range(units):
        y = layer(2 + 2 * unit, s).clamp(min=0)
        s = s + layer(3 + 2 * unit, y).clamp(min=0)
    return image + layer(2 * units + 2, s) / net.factor


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize(('shape', 'factor'), [((2, 3, 7, 9), 1.0), ((1, 3, 5, 12), 4.0)])
def test_the_network_equals_its_description(shape, factor, training):
    net = build(factor=factor).train(training)
    image = torch.rand(shape, dtype=torch.float64)
    with torch.no_grad():
        found = net(image)
    expected = literal(net, image, 'labelled', training, units=2)
    assert (expected - image).std() > 0.05
    assert (found - expected).abs().max() < 1e-10


@pytest.mark.parametrize('over_batch', [False, True])
def test_the_norm_is_that_of_the_batch_or_of_each_image(over_batch):
    x = 3 + 2 * torch.randn(2, 3, 4, 5, dtype=torch.float64)
    scale, shift = torch.rand(2, 3, dtype=torch.float64)
    found = statistics_norm(x, scale, shift, over_batch)
    assert torch.allclose(found, slow_norm(x, scale, shift, over_batch), rtol=0, atol=1e-12)
    rounded = statistics_norm(x.bfloat16(), scale.float(), shift.float(), over_batch)  # as autocast hands it in
    assert rounded.dtype == torch.float32
    exact = slow_norm(x.bfloat16().double(), scale, shift, over_batch)
    assert torch.allclose(rounded.double(), exact, rtol=0, atol=1e-5)


def test_a_single_pixel_becomes_the_shift():
    net = build().eval()
    shift = net.labelled.shifts[-1].detach()[:, None, None]
    image = torch.rand(1, 3, 1, 1, dtype=torch.float64)
    assert torch.allclose(net(image), image + shift, rtol=0, atol=1e-12)


def test_the_published_sizes_are_reached():
    found = complexity(SEMI())
    assert found.parameters == 57_369
    assert found.macs == 256 * 256 * (9 * 3 * 16 + 24 * 9 * 16 * 16 + 9 * 16 * 3)
    both = SEMI(semi=True)
    assert sum(p.numel() for p in both.parameters()) == 58_578
    assert sum(p.numel() for p in both.unlabelled.parameters()) == 1_209
    assert len(both.kernels) == 26
    # the size of the published weight file: each value thrice, for the optimiser, and 8 bytes
    assert (57_369 + 1_209) * 3 * 4 + 8 == 702_944


def test_it_begins_as_the_release_does():
    torch.manual_seed(0)
    net = SEMI(semi=True)
    for kernel in (conv.weight for conv in net.kernels):
        bound = (6 / (9 * (kernel.shape[0] + kernel.shape[1]))) ** 0.5
        assert 0.95 * bound < kernel.abs().max() <= bound
    for branch in (net.labelled, net.unlabelled):
        assert not any(p.any() for p in [*branch.biases, *branch.shifts])
        assert all((p == 1).all() for p in branch.scales)


# Statistics


def test_in_evaluation_an_image_depends_neither_on_its_neighbours_nor_on_earlier_calls():
    net, x = build().eval(), torch.rand(3, 3, 16, 11, dtype=torch.float64)
    with torch.no_grad():
        together, alone, again = net(x), net(x[1:2]), net(x)
        assert (together[1:2] - alone).abs().max() < 1e-12
        assert torch.equal(together, again)
        net.train()
        assert (net(x)[1:2] - alone).abs().max() > 1e-3  # in training it depends on them
        assert (net(x[1:2]) - alone).abs().max() < 1e-10  # but for a single image both are one


def test_nothing_is_remembered_from_training():
    net = build()
    before = copy.deepcopy(net.state_dict())
    net.train()(torch.rand(2, 3, 8, 8, dtype=torch.float64))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not list(net.buffers())


def test_a_tile_is_restored_with_its_own_statistics():
    net, x = build().eval(), torch.rand(1, 3, 32, 16, dtype=torch.float64)
    whole, tiles = restore(net, x), restore(net, x, Recipe(tile_size=16, tile_overlap=0))
    assert (whole - tiles).abs().max() > 1e-3


def test_biases_have_no_effect_and_are_frozen():
    net, x = build(semi=True), torch.rand(2, 6, 9, 9, dtype=torch.float64)
    before = net(x)
    frozen = {name for name, p in net.named_parameters() if not p.requires_grad}
    assert frozen == {f'{branch}.biases.{k}' for branch in ('labelled', 'unlabelled') for k in range(6)}
    for name in frozen:
        net.get_parameter(name).data.add_(100)
    assert all(torch.equal(a, b) for a, b in zip(net(x), before, strict=True))


# The branch of the photos


def test_in_training_it_gives_the_photos_rain_and_output_and_the_labelled_output_last():
    net, x = build(semi=True).train(), torch.rand(2, 6, 8, 9, dtype=torch.float64)
    with torch.no_grad():
        residual, photo_output, output = net(x)
    labelled, photo = x[:, :3], x[:, 3:]
    assert (output - literal(net, labelled, 'labelled', True, units=2)).abs().max() < 1e-10
    assert (photo_output - literal(net, photo, 'unlabelled', True, units=2)).abs().max() < 1e-10
    assert torch.equal(residual, photo - photo_output)


def test_elsewhere_the_labelled_branch_alone_answers():
    net, x = build(semi=True), torch.rand(2, 6, 8, 9, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(net.train()(x[:, :3]), net(x)[-1])
        assert torch.equal(net.eval()(x), net(x[:, :3]))
        single = SEMI(channels=4, units=2).double().eval()
        shared = {k: v for k, v in net.state_dict().items() if not k.startswith('unlabelled')}
        single.load_state_dict(shared, strict=True)
        assert torch.equal(single(x[:, :3]), net(x))


def test_the_branches_share_the_kernels_only():
    net, x = build(semi=True).train(), torch.rand(2, 6, 8, 8, dtype=torch.float64)
    residual, photo_output, output = net(x)
    learns = {}
    for key, value in (('labelled', output), ('unlabelled', photo_output), ('rain', residual)):
        gradients = torch.autograd.grad(
            value.pow(3).sum(), [p for p in net.parameters() if p.requires_grad], retain_graph=True, allow_unused=True
        )
        names = [name for name, p in net.named_parameters() if p.requires_grad]
        learns[key] = {n for n, g in zip(names, gradients, strict=True) if g is not None and g.abs().sum() > 0}
    own = {k: {n for n in learns[k] if not n.startswith('kernels')} for k in learns}
    kernels = {f'kernels.{k}.weight' for k in range(6)}
    assert learns['labelled'] - own['labelled'] == learns['unlabelled'] - own['unlabelled'] == kernels
    for branch in ('labelled', 'unlabelled'):
        assert own[branch] == {f'{branch}.{kind}.{k}' for kind in ('scales', 'shifts') for k in range(6)}
    assert learns['rain'] == learns['unlabelled']


def test_the_published_loss_trains_all_that_is_not_frozen():
    net = build(semi=True).float().train()
    loss = SEMILoss()(net(torch.rand(2, 6, 16, 16)), torch.rand(2, 3, 16, 16))
    loss.backward()
    assert loss.isfinite()
    assert [n for n, p in net.named_parameters() if p.requires_grad and not p.grad.abs().sum() > 0] == []


def test_other_numbers_of_channels_are_refused_with_the_remedy():
    for net, channels in ((SEMI(units=1), 6), (SEMI(units=1, semi=True), 4), (SEMI(units=1), 1)):
        with pytest.raises(ValueError, match=rf'takes 3 channels, not {channels}; .*network_g\.semi: true, .*Paired'):
            net(torch.zeros(1, channels, 8, 8))


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'channels': 0}, 'channels: 0 is not above 0; the published network has 16'),
        ({'units': 0}, 'units: 0 is not above 0; the published network has 12'),
        ({'factor': 0}, 'factor: 0 is not above 0; the published network has 1'),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(arguments, words):
    with pytest.raises(ValueError, match=words):
        SEMI(**arguments)


# Precision and export
