"""RESCAN against the published numbers and a literal twin on its state dict."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ddsa_arch.archs.complexity import complexity
from ddsa_arch.archs.rescan_arch import FRAMES, RESCAN, SE, UNITS

UNIT = pytest.mark.parametrize('unit', UNITS)
FRAME = pytest.mark.parametrize('frame', FRAMES)


def published(net, x):
    return {f'rain{s}': x - image for s, image in enumerate(net(x))}  # the release gives the layers of rain


def tiny(**changes):
    torch.manual_seed(0)
    return RESCAN(**({'channels': 4, 'depth': 4, 'stages': 3} | changes))


@pytest.mark.parametrize(
    ('stem', 'arguments'),
    [
        ('rescan', {}),
        ('rescan_gru_add', {'frame': 'Add'}),
        ('rescan_lstm_full', {'unit': 'LSTM'}),
        ('rescan_rnn_full', {'unit': 'RNN'}),
        ('rescan_conv_full', {'unit': 'Conv'}),
    ],
)
def test_the_published_outputs_are_reached(golden, stem, arguments):
    golden(stem).check(RESCAN(**arguments), published)


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


class Literal:
    """The network on its weights: every convolution and gate by itself, states in dictionaries."""

    def __init__(self, net, unit, frame):
        self.weights = dict(net.named_parameters())
        self.unit, self.frame, self.stages = unit, frame, net.stages
        self.count = len({name.split('.')[1] for name in self.weights if name.startswith('rnns.')})

    def conv(self, x, name, dilation=1):
        weight = self.weights[f'{name}.weight']
        padding = dilation * (weight.shape[-1] // 2)
        return F.conv2d(x, weight, self.weights[f'{name}.bias'], padding=padding, dilation=dilation)

    def squeeze_and_leak(self, h, name):
        if f'{name}.fc.0.weight' in self.weights:
            mean = h.sum((2, 3)) / (h.shape[2] * h.shape[3])
            hidden = (mean @ self.weights[f'{name}.fc.0.weight'].T + self.weights[f'{name}.fc.0.bias']).clamp(min=0)
            gate = sigmoid(hidden @ self.weights[f'{name}.fc.2.weight'].T + self.weights[f'{name}.fc.2.bias'])
            h = h * gate[:, :, None, None]
        return h.clamp(min=0) + 0.2 * h.clamp(max=0)

    def step(self, x, index, state):
        """The output of a unit, and the state that it leaves."""
        name, dilation = f'rnns.{index}', (1, 1, 2, 4, 8)[index]
        h, c = state.get('h'), state.get('c')

        def gate(letter):
            value = self.conv(x, f'{name}.conv_x{letter}', dilation)
            return value if h is None else value + self.conv(h, f'{name}.conv_h{letter}')

        if self.unit == 'Conv':
            return self.squeeze_and_leak(self.conv(x, f'{name}.conv', dilation), f'{name}.se'), {}
        if self.unit == 'RNN':
            new = torch.tanh(gate(''))
        elif self.unit == 'GRU' and h is None:
            new = sigmoid(gate('z')) * torch.tanh(gate('n'))
        elif self.unit == 'GRU':
            z, r = sigmoid(gate('z')), sigmoid(gate('r'))
            n = torch.tanh(self.conv(x, f'{name}.conv_xn', dilation) + self.conv(r * h, f'{name}.conv_hn'))
            new = (1 - z) * h + z * n
        elif h is None:
            c = sigmoid(gate('i')) * torch.tanh(gate('j'))
            new = sigmoid(gate('o')) * c
        else:
            c = sigmoid(gate('f')) * c + sigmoid(gate('i')) * torch.tanh(gate('j'))
            new = sigmoid(gate('o')) * torch.tanh(c)
        new = self.squeeze_and_leak(new, f'{name}.se')
        return new, {'h': new, 'c': c}

    def __call__(self, rainy):
        x, layers = rainy, []
        states = [{} for _ in range(self.count)]
        for s in range(self.stages):
            for index in range(self.count):
                x, states[index] = self.step(x, index, states[index])
            rain = self.conv(self.squeeze_and_leak(self.conv(x, 'dec.0'), 'dec.1'), 'dec.3')
            if self.frame == 'Add' and s > 0:
                rain = rain + layers[-1].detach()
            layers.append(rain)
            x = rainy - rain
        return [rainy - rain for rain in layers]


@UNIT
@FRAME
@pytest.mark.parametrize(
    ('changes', 'shape'),
    [({'depth': 7}, (1, 3, 20, 19)), ({'use_se': False, 'stages': 2}, (2, 3, 7, 5)), ({'channels': 9}, (2, 3, 1, 6))],
)
def test_the_network_and_its_gradient_equal_the_description(unit, frame, changes, shape):
    net = tiny(unit=unit, frame=frame, **changes).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.4)
    x = torch.rand(shape, dtype=torch.float64)
    images, expected = net(x), Literal(net, unit, frame)(x)
    for image, other in zip(images, expected, strict=True):
        assert (image - other).abs().max() < 1e-12 * max(1.0, other.abs().max())
    parameters = list(net.parameters())
    gradients = [torch.autograd.grad(outputs[-1].square().sum(), parameters) for outputs in (images, expected)]
    for gradient, other in zip(*gradients, strict=True):
        assert (gradient - other).abs().max() < 1e-10 * max(1.0, other.abs().max())


@pytest.mark.parametrize(('frame', 'factors'), [('Full', (1, 1, 1)), ('Add', (1, 2, 3))])
def test_add_sums_the_predictions_but_only_the_last_one_learns(frame, factors):
    net = tiny(frame=frame)
    nn.init.zeros_(net.dec[3].weight), nn.init.constant_(net.dec[3].bias, 0.125)
    x = torch.rand(1, 3, 4, 5)
    images = net(x)
    for image, factor in zip(images, factors, strict=True):
        assert torch.equal(image, x - factor * 0.125)
    images[-1].sum().backward()
    assert net.dec[3].bias.grad.tolist() == [-20.0] * 3  # one for each of the pixels, whatever the earlier stages said


@pytest.mark.parametrize(
    ('depth', 'dilations'), [(7, [1, 1, 2, 4, 8]), (3, [1]), (4, [1, 1]), (8, [1, 1, 2, 4, 8, 16])]
)
def test_depth_counts_the_units_and_the_decoders_convolutions(depth, dilations):
    units = RESCAN(channels=4, depth=depth).rnns
    assert [unit.conv_xz.dilation[0] for unit in units] == dilations
    assert {unit.conv_hz.dilation[0] for unit in units} == {1}
    assert [unit.conv_xz.in_channels for unit in units] == [3, *[4] * (len(dilations) - 1)]


@pytest.mark.parametrize('channels', [3, 24, 40])
def test_the_hidden_width_of_se_is_6_whatever_the_channels(channels):
    assert {se.fc[0].out_features for se in RESCAN(channels).modules() if isinstance(se, SE)} == {6}


def test_the_first_step_of_the_lstm_takes_c_as_it_is():
    unit = UNITS['LSTM'](3, 4, 1, use_se=False)
    x = torch.rand(1, 3, 5, 5)
    h, kept, c = unit(x)
    assert torch.equal(h, kept)
    assert torch.equal(h, F.leaky_relu(unit.conv_xo(x).sigmoid() * c, 0.2))
    assert not torch.allclose(h, F.leaky_relu(unit.conv_xo(x).sigmoid() * c.tanh(), 0.2))


@pytest.mark.parametrize('unit', ['GRU', 'LSTM', 'RNN'])
def test_what_is_kept_has_gone_through_leaky_relu(unit):
    unit = UNITS[unit](4, 4, 1, use_se=True)
    state = ()
    for _ in range(4):
        _, *state = unit(10 * torch.randn(1, 4, 8, 8), *state)
        assert -0.2 <= state[0].min() < 0
        assert 0 < state[0].max() <= 1


@UNIT
def test_only_conv_derains_the_second_time_as_the_first(unit):
    once, twice = tiny(unit=unit, stages=1).double(), tiny(unit=unit, stages=2).double()
    once.load_state_dict(twice.state_dict(), strict=True)  # the number of stages does not touch the weights
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    first, second = twice(x)
    (image,) = once(x)
    assert torch.equal(image, first)
    (forgetful,) = once(first)
    difference = (x - (first - forgetful) - second).abs().max()
    assert difference < 1e-12 if unit == 'Conv' else difference > 1e-4


@UNIT
def test_nothing_is_remembered_from_one_image_to_the_next(unit):
    net = tiny(unit=unit)
    x, other = torch.rand(2, 1, 3, 8, 8)
    before = net(x)
    net(other)
    for first, second in zip(before, net(x), strict=True):
        assert torch.equal(first, second)


@UNIT
@FRAME
def test_every_parameter_learns_from_the_last_image(unit, frame):
    net = tiny(unit=unit, frame=frame)
    net(torch.rand(2, 3, 16, 16))[-1].mean().backward()
    assert [k for k, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize(
    ('unit', 'parameters', 'cost'),
    [
        ('GRU', 149_823, 32_081_713_920),
        ('LSTM', 197_367, 42_783_480_576),
        ('RNN', 54_735, 12_079_602_432),
        ('Conv', 28_695, 6_983_523_072),
    ],
)
@FRAME
def test_the_published_network_has_the_published_cost(unit, frame, parameters, cost):
    counted = complexity(RESCAN(unit=unit, frame=frame), 256, 256)
    assert (counted.parameters, counted.macs, counted.outputs) == (parameters, cost, 4)


def test_se_can_be_left_out():
    net = tiny(use_se=False)
    assert not any('fc' in name for name in net.state_dict())
    assert sorted({name.split('.')[1] for name in net.state_dict() if name.startswith('dec.')}) == ['0', '3']


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'unit': 'gru'}, "unit: 'gru' is not known; choose one of 'GRU', 'LSTM', 'RNN', 'Conv'"),
        ({'frame': 'add'}, "frame: 'add' is not known; choose one of 'Full', 'Add'"),
        ({'channels': 0}, 'channels: 0 is below 1; the published network has 24'),
        ({'depth': 2}, 'depth: 2 is below 3; the published network has 7'),
        ({'stages': 0}, 'stages: 0 is below 1; the published network has 4'),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(arguments, words):
    with pytest.raises(ValueError, match=words):
        tiny(**arguments)


@UNIT
@FRAME
def test_mixed_precision_stays_near_float32(unit, frame):
    net = tiny(unit=unit, frame=frame).eval()
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        exact = net(x)
        with torch.autocast('cpu', torch.bfloat16):
            rounded = net(x)
    for a, b in zip(exact, rounded, strict=True):
        assert b.dtype == torch.float32  # the rain is taken from the input in its precision
        assert 0 < (a - b).abs().max() < 0.02
