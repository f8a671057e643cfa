"""Joint gates of recurrent units against each convolution by itself."""

import pytest
import torch
from torch import nn

from ddsa_arch.archs.mspfn_arch import ConvLSTM
from ddsa_arch.archs.rescan_arch import RESCAN
from ddsa_arch.fast import accelerate
from ddsa_arch.fast.gates import joint_conv


@pytest.mark.parametrize('dilation', [1, 4])
def test_joint_convolutions_give_what_each_gives_by_itself(dilation):
    convs = [nn.Conv2d(5, 3, 3, padding=dilation, dilation=dilation).double() for _ in range(3)]
    x = torch.rand(2, 5, 9, 7, dtype=torch.float64)
    for conv, output in zip(convs, joint_conv(convs, x), strict=True):
        assert (output - conv(x)).abs().max() < 1e-14


@pytest.mark.parametrize(
    ('build', 'kinds'),
    [
        (lambda: RESCAN(4, 5, 3), {'GRU': 3}),
        (lambda: RESCAN(4, 5, 3, unit='LSTM', frame='Add'), {'LSTM': 3}),
        (lambda: ConvLSTM(3, 4), {'ConvLSTM': 1}),
    ],
    ids=['GRU', 'LSTM', 'ConvLSTM'],
)
def test_units_give_the_outputs_and_gradients_of_the_paper(build, kinds):
    torch.manual_seed(0)
    net, x = build().double(), torch.rand(2, 3, 12, 15, dtype=torch.float64)
    found = []
    for _ in range(2):
        net.zero_grad()
        out = net(x)
        out = out if isinstance(out, torch.Tensor) else out[-1]
        out.square().sum().backward()
        found.append([out.detach(), *(p.grad.clone() for p in net.parameters())])
        done = accelerate(net)
    assert {kind: list(done.fast.values()).count(kind) for kind in kinds} == kinds
    for plain, fast in zip(*found, strict=True):
        assert (plain - fast).abs().max() < 1e-12 * max(1, plain.abs().max())
