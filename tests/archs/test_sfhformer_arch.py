"""SFHformer against the outputs of the published network, and its spectra against NumPy's transforms."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ddsa_arch.archs.sfhformer_arch import FourierConvolution, SFHformer, from_spectrum, spectrum

SLOW = pytest.mark.slow
DEPTHS = {'s': (2, 2, 4, 2, 2), 'm': (4, 4, 8, 4, 4), 'l': (6, 6, 10, 6, 6)}


@pytest.mark.parametrize(
    ('size', 'image'),
    [
        ('s', '1x3x64x64'),
        pytest.param('m', '1x3x44x56', marks=SLOW),
        pytest.param('m', '1x3x64x64', marks=SLOW),
        pytest.param('l', '1x3x64x64', marks=SLOW),
    ],
)
def test_the_published_outputs_are_reached(golden, size, image):
    file = golden(f'sfhformer_{size}')
    run = file.spec['runs']['plain']
    run['outputs'] = {image: run['outputs'][image]}
    file.check(SFHformer(depths=DEPTHS[size]), lambda net, x: {'out': net(x)})


@pytest.mark.parametrize(('size', 'parameters'), [('s', 2_960_527), ('m', 5_826_843), ('l', 7_612_069)])
def test_parameters_are_the_published_ones(size, parameters):
    with torch.device('meta'):
        assert sum(p.numel() for p in SFHformer(depths=DEPTHS[size]).parameters()) == parameters


def erf_gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def as_array(tensor):
    return tensor.detach().numpy()


@torch.no_grad()
@pytest.mark.parametrize(('height', 'width'), [(6, 8), (5, 7), (8, 5), (1, 2)])
def test_the_convolution_of_a_spectrum_is_that_of_numpys(height, width):
    """Real and imaginary parts are neighbouring channels; imaginary parts of the purely real columns are dropped."""
    torch.manual_seed(0)
    n = 3
    net = FourierConvolution(n).double().eval()
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.normal_(std=0.5)
    net.bn.running_var.abs_().add_(0.5)
    x = torch.randn(1, n, height, width, dtype=torch.float64)

    half = np.fft.rfft2(as_array(x[0]), norm='ortho')  # (n, H, W // 2 + 1)
    parts = np.stack([half.real, half.imag], 1).reshape(2 * n, *half.shape[1:])
    mean, var = as_array(net.bn.running_mean), as_array(net.bn.running_var)
    scale, shift = as_array(net.bn.weight), as_array(net.bn.bias)
    mean, var, scale, shift = (v[:, None, None] for v in (mean, var, scale, shift))
    r = (parts - mean) / np.sqrt(var + 1e-5) * scale + shift
    framed = np.pad(r, ((0, 0), (1, 1), (1, 1)))  # with zeros: no frequency is a neighbour across the border
    kernel, bias = as_array(net.fpe.weight)[:, 0], as_array(net.fpe.bias)
    local = np.zeros_like(r)
    for a in range(3):
        for b in range(3):
            local += kernel[:, a, b, None, None] * framed[:, a : a + r.shape[1], b : b + r.shape[2]]
    r = r + local + bias[:, None, None]
    q = np.einsum('oc,chw->ohw', as_array(net.fdc.weight)[:, :, 0, 0], r) + as_array(net.fdc.bias)[:, None, None]
    q = erf_gelu(q)
    lines = np.fft.ifft(q[0::2] + 1j * q[1::2], axis=1, norm='ortho')
    place = np.arange(width)
    wanted = np.zeros((n, height, width))
    for k in range(width // 2 + 1):
        wave = lines[:, :, k, None] * np.exp(2j * np.pi * k * place / width)
        if k == 0 or 2 * k == width:
            wave = lines[:, :, k, None].real * np.cos(2 * np.pi * k * place / width)
        else:
            wave = 2 * wave.real
        wanted += wave / math.sqrt(width)
    assert np.abs(as_array(net(x))[0] - wanted).max() < 1e-12


@pytest.mark.parametrize(('width', 'real'), [(8, [0, 4]), (7, [0]), (1, [0])])
def test_no_library_is_left_to_decide_about_imaginary_parts_of_real_columns(monkeypatch, width, real):
    seen, inverse = [], torch.fft.irfft
    monkeypatch.setattr(torch.fft, 'irfft', lambda lines, **how: seen.append(lines) or inverse(lines, **how))
    from_spectrum(torch.randn(1, 6, 5, width // 2 + 1), 5, width)
    assert [k for k in range(width // 2 + 1) if seen[0][..., k].imag.abs().max() == 0] == real


@pytest.mark.parametrize('size', [(6, 8), (5, 7), (1, 1)])
def test_the_inverse_transform_brings_a_map_back(size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    assert (from_spectrum(spectrum(x), *size) - x).abs().max() < 1e-12


def test_several_groups_are_weighed_by_a_softmax():
    torch.manual_seed(0)
    net = FourierConvolution(3, groups=3).eval()
    parts = torch.randn(2, 6, 4, 5)
    net.bn, net.fpe = nn.Identity(), nn.Conv2d(6, 6, 1)
    nn.init.zeros_(net.fpe.weight)
    nn.init.zeros_(net.fpe.bias)
    x = from_spectrum(parts, 4, 8)
    parts = spectrum(x)
    pieces = [nn.functional.conv2d(parts[:, 2 * g : 2 * g + 2], net.fdc.weight[6 * g : 6 * g + 6]) for g in range(3)]
    pieces = [piece + net.fdc.bias[6 * g : 6 * g + 6, None, None] for g, piece in enumerate(pieces)]
    logits = net.weight[0](parts)
    shares = logits.exp() / logits.exp().sum(1, keepdim=True)
    mixed = sum(shares[:, g : g + 1] * piece for g, piece in enumerate(pieces))
    assert torch.allclose(net(x), from_spectrum(nn.functional.gelu(mixed), 4, 8), atol=1e-6)


def test_spectra_stay_in_float32_under_mixed_precision():
    net = FourierConvolution(4).eval()
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        assert net(torch.rand(1, 4, 6, 10).bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'width': 30}, 'width: 30 is not a multiple of 4; try 32'),
        ({'width': 0}, 'width: 0 is not a multiple of 4; try 4'),
        ({'depths': [1, 1, 2, 1]}, r'depths: \[1, 1, 2, 1\] has 4 entries, wanted 5'),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(arguments, words):
    with pytest.raises(ValueError, match=words):
        SFHformer(**arguments)
