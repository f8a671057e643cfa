"""Channel attention and its block against loops over channels and pixels."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ddsa_arch.archs.blocks.channel_attention import CA, CAB, same_conv


def literal_conv(x, weight, bias):
    """A convolution with zero padding of (C, H, W), one output number at a time."""
    channels, size = weight.shape[0], weight.shape[-1]
    padded = np.pad(x, ((0, 0), (size // 2, size // 2), (size // 2, size // 2)))
    out = np.zeros((channels, *x.shape[1:]))
    for c in range(channels):
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                out[c, i, j] = (padded[:, i : i + size, j : j + size] * weight[c]).sum() + bias[c]
    return out


def literal_attention(x, w1, b1, w2, b2):
    """x * sigmoid(W2 relu(W1 mean(x) + b1) + b2) of (C, H, W), channel by channel."""
    means = np.array([channel.mean() for channel in x])
    hidden = [max(0.0, (row * means).sum() + b) for row, b in zip(w1, b1, strict=True)]
    gates = [1 / (1 + math.exp(-((row * hidden).sum() + b))) for row, b in zip(w2, b2, strict=True)]
    return np.stack([channel * gate for channel, gate in zip(x, gates, strict=True)])


def numbers(conv):
    """Weight and bias of a convolution as arrays; the bias 0 where there is none."""
    weight = conv.weight.detach().numpy()
    return weight, np.zeros(len(weight)) if conv.bias is None else conv.bias.detach().numpy()


def attention_numbers(module):
    (w1, b1), (w2, b2) = numbers(module.conv_du[0]), numbers(module.conv_du[2])
    return w1[:, :, 0, 0], b1, w2[:, :, 0, 0], b2


@pytest.mark.parametrize('bias', [True, False])
def test_channel_attention_equals_its_definition(bias):
    net = CA(9, reduction=2, bias=bias).double()
    x = torch.randn(2, 9, 5, 7, dtype=torch.float64)
    expected = [literal_attention(image.numpy(), *attention_numbers(net)) for image in x]
    assert np.abs(net(x).detach().numpy() - expected).max() < 1e-12


@pytest.mark.parametrize(('kernel_size', 'bias'), [(3, False), (3, True), (5, False), (1, False)])
def test_the_block_equals_its_definition(kernel_size, bias):
    net = CAB(6, nn.PReLU(init=0.3), kernel_size, reduction=3, bias=bias).double()
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    for image, out in zip(x.numpy(), net(x).detach().numpy(), strict=True):
        y = literal_conv(image, *numbers(net.body[0]))
        y = np.where(y > 0, y, net.body[1].weight.item() * y)
        y = literal_conv(y, *numbers(net.body[2]))
        assert np.abs(out - (image + literal_attention(y, *attention_numbers(net.CA)))).max() < 1e-12


def test_the_weights_have_the_published_names():
    assert {k: tuple(v.shape) for k, v in CAB(60, nn.PReLU()).state_dict().items()} == {
        'CA.conv_du.0.weight': (15, 60, 1, 1), 'CA.conv_du.2.weight': (60, 15, 1, 1),
        'body.0.weight': (60, 60, 3, 3), 'body.1.weight': (1,), 'body.2.weight': (60, 60, 3, 3),
    }  # fmt: skip


def test_the_hidden_width_is_rounded_down():
    assert CA(15, reduction=4).conv_du[0].weight.shape == (3, 15, 1, 1)


def test_blocks_share_the_activation_that_they_are_handed():
    activation = nn.PReLU()
    pair = nn.Sequential(CAB(4, activation), CAB(4, activation))
    names = [k for k in pair.state_dict() if k.endswith('body.1.weight')]
    assert names == ['0.body.1.weight', '1.body.1.weight']
    assert sum(p is activation.weight for p in pair.parameters()) == 1


@pytest.mark.parametrize('kernel_size', [0, 2, 4])
def test_a_kernel_that_cannot_keep_the_size_is_refused(kernel_size):
    with pytest.raises(ValueError, match=f'kernel_size: {kernel_size} cannot keep .* odd number, such as 3'):
        same_conv(4, 4, kernel_size)


@pytest.mark.parametrize('reduction', [0, 5])
def test_a_reduction_that_leaves_no_channel_is_refused(reduction):
    with pytest.raises(ValueError, match=f'reduction: {reduction} .* take one between 1 and 4'):
        CA(4, reduction)
