"""RESCAN against the outputs of the published networks."""

import pytest
import torch
from torch import nn

from ddsa_arch.archs.rescan_arch import FRAMES, RESCAN, UNITS

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


@UNIT
@FRAME
def test_every_parameter_learns_from_the_last_image(unit, frame):
    net = tiny(unit=unit, frame=frame)
    net(torch.rand(2, 3, 16, 16))[-1].mean().backward()
    assert [k for k, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


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
