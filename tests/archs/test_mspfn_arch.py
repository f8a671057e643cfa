"""MSPFN against a literal twin of its description, whose convolutions are loops with TensorFlow's conventions."""

import copy

import pytest
import torch

from ddsa_arch.archs.complexity import complexity
from ddsa_arch.archs.mspfn_arch import MSPFN, Double, Halve, SameConv
from ddsa_arch.models.training_step import checkpoint_blocks


def build(**arguments):
    """A small network in float64, each of whose parameters matters, unlike those of a new one."""
    torch.manual_seed(0)
    net = MSPFN(**{'width': 4, 'units': 2, 'rcabs': (1, 2, 1)} | arguments).double().eval()
    for parameter in net.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=(1.5 / parameter[0].numel()) ** 0.5)
        else:
            torch.nn.init.normal_(parameter, std=0.2)
    return net


def pads(side, stride):
    """Zeros before a side, and the length of the output, by TensorFlow's SAME for a kernel of 3."""
    out = -(-side // stride)
    total = max((out - 1) * stride + 3 - side, 0)
    return total // 2, out


def slow_conv(x, kernel, stride=1, bias=None):
    """Kernel (out, in, 3, 3): each output pixel sums over those of its window that lie inside."""
    (top, height), (left, width) = (pads(side, stride) for side in x.shape[-2:])
    y = x.new_zeros(x.shape[0], kernel.shape[0], height, width)
    for row in range(height):
        for column in range(width):
            for a in range(3):
                for b in range(3):
                    r, c = row * stride + a - top, column * stride + b - left
                    if 0 <= r < x.shape[-2] and 0 <= c < x.shape[-1]:
                        y[:, :, row, column] += x[:, :, r, c] @ kernel[:, :, a, b].T
    return y if bias is None else y + bias[:, None, None]


def slow_transposed(x, kernel, stride, size):
    """Kernel (in, out, 3, 3): each input pixel gives to the pixels that a SAME convolution of ``size`` took it from."""
    (top, height), (left, width) = (pads(side, stride) for side in size)
    assert (height, width) == x.shape[-2:]
    y = x.new_zeros(x.shape[0], kernel.shape[1], *size)
    for row in range(height):
        for column in range(width):
            for a in range(3):
                for b in range(3):
                    r, c = row * stride + a - top, column * stride + b - left
                    if 0 <= r < size[0] and 0 <= c < size[1]:
                        y[:, :, r, c] += x[:, :, row, column] @ kernel[:, :, a, b]
    return y


class Literal:
    """The network written out on its state dict."""

    def __init__(self, net):
        self.weights = net.state_dict()
        self.units = len(net.fine)

    def get(self, name):
        return self.weights[name]

    def prelu(self, x, name):
        return x.clamp(min=0) + self.get(f'{name}.weight')[:, None, None] * x.clamp(max=0)

    def dec1(self, x, name):
        """Transposed, of stride 1, as published: our kernel is the published one turned round."""
        kernel = self.get(f'{name}.0.weight').flip(2, 3).transpose(0, 1)
        return self.prelu(slow_transposed(x, kernel, 1, x.shape[-2:]), f'{name}.1')

    def dec2(self, x, name, size=None):
        size = size or [2 * side for side in x.shape[-2:]]
        return self.prelu(slow_transposed(x, self.get(f'{name}.conv.weight'), 2, size), f'{name}.activation')

    def full(self, x, name):
        return slow_conv(x, self.get(f'{name}.weight'), 1, self.get(f'{name}.bias'))

    def point(self, x, name):
        return x @ self.get(f'{name}.weight')[..., 0, 0].T + self.get(f'{name}.bias')

    def lstm(self, x, name):
        """A whole step of the cell: input, state and memory, with all gates."""
        features = self.get(f'{name}.gates.bias').numel() // 4
        h = c = x.new_zeros(x.shape[0], features, *x.shape[-2:])
        i, j, f, o = self.full(torch.cat([x, h], 1), f'{name}.gates').split(features, 1)
        c = c * torch.sigmoid(f + 1) + torch.sigmoid(i) * torch.tanh(j)
        return torch.tanh(c) * torch.sigmoid(o)

    def memory(self, x, name):
        return self.dec1(self.lstm(self.dec1(x, f'{name}.0'), f'{name}.1'), f'{name}.2')

    def rcab(self, x, name):
        y = self.full(self.prelu(self.full(x, f'{name}.body.0'), f'{name}.body.1'), f'{name}.body.2')
        s = y.sum((2, 3)) / y[0, 0].numel()
        s = self.point(s, f'{name}.attention.0')
        s = s.clamp(min=0) + self.get(f'{name}.attention.1.weight') * s.clamp(max=0)
        return x + y / (1 + torch.exp(-self.point(s, f'{name}.attention.2')))[:, :, None, None]

    def urab(self, x, name):
        d = slow_conv(x, self.get(f'{name}.down.conv.weight'), stride=2)
        e = d = self.prelu(d, f'{name}.down.activation')
        for k in range(9):
            if f'{name}.body.{k}.body.0.weight' in self.weights:
                e = self.rcab(e, f'{name}.body.{k}')
        return self.dec2(torch.cat([d, e], 1), f'{name}.up', x.shape[-2:])

    def box(self, x, side):
        return sum(x[..., a::side, b::side] for a in range(side) for b in range(side)) / side**2

    def __call__(self, rain):
        x = 2 * rain - 1
        r4, r2, r1 = (self.dec1(self.box(x, s), f'stem{s}') for s in (4, 2, 1))
        m4 = self.memory(r4, 'coarse.block4') + r4
        u42 = self.dec2(m4, 'coarse.up42')
        m2 = self.memory(r2 + u42, 'coarse.block2') + r2
        u41, u21 = self.dec2(u42, 'coarse.up41'), self.dec2(m2, 'coarse.up21')
        m1 = self.memory(r1 + u21 + u41, 'coarse.block1') + r1
        q4, q2, q1 = m4, m2, m1
        for n in range(self.units):
            q4 = q4 + self.urab(q4, f'fine.{n}.block4')
            v42 = self.dec2(q4, f'fine.{n}.up42')
            q2 = q2 + self.urab(q2 + v42, f'fine.{n}.block2')
            v41, v21 = self.dec2(v42, f'fine.{n}.up41'), self.dec2(q2, f'fine.{n}.up21')
            q1 = q1 + self.urab(q1 + v41 + v21, f'fine.{n}.block1')
        pairs = {4: (q4, m4), 2: (q2, m2), 1: (q1, m1)}
        p4, p2, p1 = (self.dec1(torch.cat(pairs[s], 1), f'reconstruction.fuse{s}') for s in (4, 2, 1))
        w42 = self.dec2(p4, 'reconstruction.up42')
        w21 = self.dec2(torch.cat([w42, p2], 1), 'reconstruction.up21')
        z = self.dec1(torch.cat([p1, w21], 1), 'reconstruction.refine')
        kernel = self.get('reconstruction.output.weight').flip(2, 3).transpose(0, 1)
        return (x - slow_transposed(z, kernel, 1, z.shape[-2:]) + 1) / 2


@pytest.mark.parametrize('shape', [(1, 3, 16, 8), (2, 3, 12, 20), (1, 3, 4, 8)])
def test_the_network_equals_its_description(shape):
    """12 x 20 has odd sides at scale 4, 4 x 8 a single row there."""
    net = build()
    rain = torch.rand(shape, dtype=torch.float64)
    with torch.no_grad():
        expected, found = Literal(net)(rain), net(rain)
    assert (expected - rain).std() > 0.05  # the streaks are no constant
    assert (found - expected).abs().max() < 1e-10 * expected.abs().max()


@pytest.mark.parametrize('size', [(6, 8), (5, 7), (4, 9), (1, 2)])
def test_convolutions_of_stride_2_are_padded_as_in_tensorflow(size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    halve, double = Halve(3).double(), Double(3, 5).double()
    for activation in (halve.activation, double.activation):
        torch.nn.init.ones_(activation.weight)  # no activation
    y = halve(x)
    assert torch.allclose(y, slow_conv(x, halve.conv.weight, 2), rtol=0, atol=1e-12)
    assert torch.allclose(double(y, size), slow_transposed(y, double.conv.weight, 2, size), rtol=0, atol=1e-12)
    twice = [2 * side for side in y.shape[-2:]]
    assert torch.equal(double(y), double(y, twice))
    assert torch.allclose(double(y), slow_transposed(y, double.conv.weight, 2, twice), rtol=0, atol=1e-12)


def test_the_cost_is_that_of_the_layers_with_what_the_lstms_never_use():
    """At 256 x 256."""
    n, c = 256 * 256, 64
    stem = n * (1 + 1 / 4 + 1 / 16) * 9 * 3 * c
    ups = n * 9 * c * c * (1 / 16 + 1 / 4 + 1 / 4)  # 42, 41 and 21, by the pixels that go in
    memories = sum(n / s**2 * 9 * (c * 32 + (32 + f) * 4 * f + f * c) for s, f in ((4, 64), (2, 128), (1, 256)))
    urab = sum(n / s**2 / 4 * 9 * c * c * (1 + 2 + 2) + 2 * c * 16 for s in (4, 2, 1))
    last = n * 9 * (2 * c * c * 21 / 16 + c * c / 16 + 2 * c * c / 4 + 2 * c * 32 + 32 * 3)
    found = complexity(MSPFN())
    assert found.macs == stem + memories + ups + 17 * (urab + ups) + last == 301_704_517_632
    assert found.outputs == 1


def test_it_begins_as_the_release_does():
    torch.manual_seed(0)
    net = MSPFN(units=1)
    for name, parameter in net.named_parameters():
        if name.endswith('.bias') or parameter.ndim == 1:  # slopes of PReLU, which is a ReLU then
            assert not parameter.any(), name
        elif 'gates' in name:
            assert parameter.abs().max() <= 2e-3, name
            assert parameter.std().item() == pytest.approx(0.88e-3, rel=0.02), name  # of a normal cut at 2 deviations
        else:
            bound = (6 / (sum(parameter.shape[:2]) * parameter[0, 0].numel())) ** 0.5
            assert 0.9 * bound < parameter.abs().max() <= bound, name


def test_the_forget_gate_and_the_kernels_on_the_state_have_no_effect_but_are_trained_with_the_rest():
    net, x = build(), torch.rand(1, 3, 8, 8, dtype=torch.float64)
    net(x).square().mean().backward()
    lstm = net.coarse.block2[1]
    f = lstm.features
    used = lstm.gates.in_channels - f
    gradient = lstm.gates.weight.grad
    assert gradient[:, :used].abs().sum((1, 2, 3)).bool().tolist() == [True] * 2 * f + [False] * f + [True] * f
    assert not gradient[:, used:].any()
    assert not lstm.gates.bias.grad[2 * f : 3 * f].any()
    assert lstm.gates.bias.grad[: 2 * f].all()


def test_swapped_channels_of_the_first_and_last_kernels_make_it_a_network_for_bgr():
    net = build()
    other = copy.deepcopy(net)
    for stem in (other.stem4, other.stem2, other.stem1):
        stem[0].weight.data = stem[0].weight.data.flip(1)
    other.reconstruction.output.weight.data = other.reconstruction.output.weight.data.flip(0)
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(net(x), other(x.flip(1)).flip(1), rtol=0, atol=1e-12)
        assert not torch.allclose(net(x), other(x), rtol=0, atol=1e-3)


def test_activations_may_be_computed_anew_in_the_backward_pass():
    nets = [build(), build()]
    checkpoint_blocks(nets[1])
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    for net in nets:
        net.train()(x).square().mean().backward()
    for (name, a), b in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-9, atol=1e-14), name


def test_it_can_be_exported_with_odd_sides_at_the_coarsest_scale():
    net, x = build().float(), torch.rand(1, 3, 12, 8)
    exported = torch.export.export(net, (x,)).module()
    with torch.no_grad():
        assert torch.allclose(exported(x), net(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'width': 6}, 'width: 6 is not a multiple of 4; the published network has 64'),
        ({'width': 0}, 'width: 0 is not a multiple of 4'),
        ({'units': 0}, 'units: 0 leaves no fine fusion; the published network has 17'),
        ({'rcabs': (1, 1)}, r'rcabs: \[1, 1\], wanted one number from 1 up for each of the scales 4, 2, 1'),
        ({'rcabs': (1, 0, 1)}, r'rcabs: \[1, 0, 1\], wanted'),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(arguments, words):
    with pytest.raises(ValueError, match=words):
        MSPFN(**arguments)


def test_a_transposed_convolution_of_stride_1_is_one_with_the_kernel_turned():
    layer = SameConv(3, 5).double()
    torch.nn.init.ones_(layer[1].weight)
    x = torch.randn(1, 3, 5, 6, dtype=torch.float64)
    kernel = torch.zeros(3, 5, 3, 3, dtype=torch.float64)
    for a in range(3):
        for b in range(3):
            kernel[:, :, a, b] = layer[0].weight[:, :, 2 - a, 2 - b].detach().T
    assert torch.allclose(layer(x), slow_transposed(x, kernel, 1, (5, 6)), rtol=0, atol=1e-12)
