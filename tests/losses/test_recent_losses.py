"""The losses of NAFNet, ConvIR, SFHformer and NeRD-Rain, against numpy, and the Gaussian pyramid against kornia's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.losses import build_loss

from ddsa_arch.losses.outputs import pyramid_half, resized
from ddsa_arch.options.loading import load_options

RECIPES = Path(__file__).resolve().parents[2] / 'options' / 'train'
SPECTRA = {'parts': lambda d: (np.abs(d.real) + np.abs(d.imag)) / 2, 'modulus': np.abs}


def drawn(seed, shape=(2, 3, 48, 64)):
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).random(shape, np.float32)).double()


def numpy_fft_loss(output, target, kind):
    difference = np.fft.fft2(output) - np.fft.fft2(target)
    return SPECTRA[kind](difference).mean()


def numpy_half(x):
    """Blur by a 5x5 kernel, pixel by pixel, then average 2 x 2."""
    taps = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    padded = np.pad(x, [(0, 0), (0, 0), (2, 2), (2, 2)], mode='reflect')
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(-2, -1))
    blurred = (windows * taps).sum((-2, -1))
    return (blurred[..., ::2, ::2] + blurred[..., 1::2, ::2] + blurred[..., ::2, 1::2] + blurred[..., 1::2, 1::2]) / 4


@pytest.mark.parametrize('kind', ['parts', 'modulus'])
@pytest.mark.parametrize('shape', [(2, 3, 8, 8), (1, 1, 5, 7), (3, 3, 6, 1)])
def test_spectra_are_compared_as_numpy_does(kind, shape):
    x, y = drawn(1, shape), drawn(2, shape)
    loss = build_loss({'type': 'FFTLoss', 'kind': kind, 'loss_weight': 0.1})
    assert loss(x, y).item() == pytest.approx(0.1 * numpy_fft_loss(x.numpy(), y.numpy(), kind), rel=1e-12)
    assert loss(x.float(), y.float()).item() == pytest.approx(loss(x, y).item(), rel=1e-5)


def test_a_spectrum_that_anyone_can_compute():
    """The transform of one pixel of height 3 is 3 at the real part of all frequencies, whatever the size."""
    x = torch.zeros(1, 1, 4, 6)
    x[0, 0, 0, 0] = 3
    assert build_loss({'type': 'FFTLoss', 'kind': 'modulus'})(x, torch.zeros_like(x)).item() == pytest.approx(3)
    assert build_loss({'type': 'FFTLoss', 'kind': 'parts'})(x, torch.zeros_like(x)).item() == pytest.approx(1.5)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_float32(dtype):
    """Sizes that are no powers of two, and a sum over 60 x 100 pixels that float16 could not hold."""
    x, y = torch.full((1, 3, 60, 100), 40.0, dtype=dtype), torch.zeros(1, 3, 60, 100, dtype=dtype)
    loss = build_loss({'type': 'FFTLoss', 'kind': 'modulus'})
    with torch.autocast('cpu', torch.bfloat16):
        value = loss(x, y)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(40)  # the mean of the spectrum is the first pixel, and it is all in one place


def test_psnr_is_that_of_each_image():
    x, y = drawn(3), drawn(4)
    x[1] = y[1] + 0.01 * x[1]
    errors = ((x - y) ** 2).numpy().reshape(2, -1).mean(1)
    loss = build_loss({'type': 'PSNRLoss', 'loss_weight': 0.5})
    assert loss(x, y).item() == pytest.approx(0.5 * (10 * np.log10(errors + 1e-8)).mean(), rel=1e-12)
    assert loss(y, y).item() == pytest.approx(0.5 * -80)
    assert loss(y + 0.1, y).item() == pytest.approx(0.5 * -20, rel=1e-5)


@pytest.mark.parametrize('options', [
    {'type': 'FFTLoss', 'kind': 'parts'}, {'type': 'FFTLoss', 'kind': 'modulus'}, {'type': 'PSNRLoss'},
    {'type': 'FFTLoss', 'target_resize': 'gaussian', 'output_weights': [1, 2]},
    {'type': 'EdgeLoss', 'target_resize': 'gaussian', 'output_weights': [1, 2]},
], ids=str)  # fmt: skip
def test_gradients_are_those_of_finite_differences(options):
    target = drawn(5, (2, 2, 8, 8))
    outputs = [drawn(6, (2, 2, 4, 4)).requires_grad_(), drawn(7, (2, 2, 8, 8)).requires_grad_()]
    outputs = outputs if 'output_weights' in options else outputs[1:]
    loss = build_loss(options)
    assert torch.autograd.gradcheck(lambda *images: loss(list(images), target), outputs)


@pytest.mark.parametrize('name', ['FFTLoss', 'PSNRLoss'])
def test_equal_images_have_no_gradient(name):
    x = drawn(8, (1, 3, 16, 16))
    output = x.clone().requires_grad_()
    build_loss({'type': name})(output, x).backward()
    assert output.grad.abs().max() == 0


def test_the_pyramid_is_kornias():
    """Values of ``kornia.geometry.transform.build_pyramid`` 0.9.0, and a slow twin."""
    x = drawn(2026)
    half = pyramid_half(x)
    quarter = pyramid_half(half)
    assert half.ravel()[:4].tolist() == pytest.approx(
        [0.6132972058840096, 0.5101249683648348, 0.38798855541972443, 0.49099038809072226], rel=1e-12
    )
    assert quarter.ravel()[:4].tolist() == pytest.approx(
        [0.5368904823287721, 0.529731897956367, 0.5490074466455894, 0.4954676640113007], rel=1e-12
    )
    assert quarter.mean().item() == pytest.approx(0.5008237984172607, rel=1e-12)
    assert np.allclose(half.numpy(), numpy_half(x.numpy()), rtol=0, atol=1e-14)
    assert torch.equal(resized(x, quarter, 'gaussian'), quarter)


def test_smaller_targets_of_convir_are_means_of_the_pixels_in_the_middle():
    x = drawn(9, (1, 1, 8, 8))
    half = resized(x, torch.zeros(1, 1, 4, 4))
    quarter = resized(x, torch.zeros(1, 1, 2, 2))
    assert half[0, 0, 1, 2].item() == pytest.approx(x[0, 0, 2:4, 4:6].mean().item(), rel=1e-12)
    assert quarter[0, 0, 1, 0].item() == pytest.approx(x[0, 0, 5:7, 1:3].mean().item(), rel=1e-12)


def total(recipe, outputs, target):
    """Return the sum of all losses of a recipe."""
    train = load_options(RECIPES / f'{recipe}.yml', True)['train']
    losses = [train['pixel_opt'], *(train.get('losses') or {}).values()]
    return sum(build_loss(dict(options))(outputs, target).item() for options in losses)


def means(x, step):
    """Return the means of the middle 2 x 2 of each ``step`` x ``step`` pixels."""
    a, b = step // 2 - 1, step // 2
    return (
        x[..., a::step, a::step] + x[..., a::step, b::step] + x[..., b::step, a::step] + x[..., b::step, b::step]
    ) / 4


def numpy_charbonnier(difference):
    return np.sqrt(difference**2 + 1e-6).mean()


def numpy_edges(x):
    """MPRNet's: less what a Gaussian filter leaves of every second pixel, times 4, filtered again."""

    def blurred(image):
        taps = np.outer([0.05, 0.25, 0.4, 0.25, 0.05], [0.05, 0.25, 0.4, 0.25, 0.05])
        padded = np.pad(image, [(0, 0), (0, 0), (2, 2), (2, 2)], mode='edge')
        return (np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(-2, -1)) * taps).sum((-2, -1))

    rows, columns = np.indices(x.shape[-2:])
    return x - blurred(np.where((rows % 2 == 0) & (columns % 2 == 0), 4 * blurred(x), 0))


@pytest.mark.parametrize('recipe', ['ConvIR_Rain13K', 'SFHformer_Rain13K'])
def test_l1_and_spectra_of_all_outputs_are_summed(recipe):
    target = drawn(10, (2, 3, 16, 24))
    outputs = [drawn(11, (2, 3, 4, 6)), drawn(12, (2, 3, 8, 12)), drawn(13, (2, 3, 16, 24))]
    targets = [means(target, 4), means(target, 2), target]
    if recipe.startswith('SFHformer'):
        outputs, targets = outputs[-1], targets[-1:]
    expected = 0.0
    for x, t in zip(outputs if isinstance(outputs, list) else [outputs], targets, strict=True):
        expected += np.abs((x - t).numpy()).mean() + 0.1 * numpy_fft_loss(x.numpy(), t.numpy(), 'parts')
    assert total(recipe, outputs, target) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('recipe', ['NeRDRain_Rain13K', 'NeRDRain_S_Rain13K'])
def test_the_whole_loss_of_nerd_rain(recipe):
    """Two inputs, which do not count, two implicit images, three results; targets are a Gaussian pyramid."""
    target = drawn(14, (1, 3, 32, 48)).numpy()
    half = numpy_half(target)
    quarter = numpy_half(half)
    scales = [quarter, quarter, half, half, quarter, half, target]
    outputs = [drawn(20 + number, scale.shape) for number, scale in enumerate(scales)]
    images = [image.numpy() for image in outputs]
    expected = 0.1 * (np.abs(images[1] - quarter).mean() + np.abs(images[3] - half).mean())
    for x, t in zip(images[4:], scales[4:], strict=True):
        expected += numpy_charbonnier(x - t) + 0.01 * numpy_fft_loss(x, t, 'modulus')
        expected += 0.05 * numpy_charbonnier(numpy_edges(x) - numpy_edges(t))
    assert total(recipe, outputs, torch.from_numpy(target)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'type': 'FFTLoss', 'kind': 'phase'}, "kind: 'phase' is not known; choose one of 'parts', 'modulus'"),
        (
            {'type': 'DerainL1Loss', 'target_resize': 'area'},
            "target_resize: 'area' is not known; choose one of 'bilinear', 'nearest', 'gaussian'",
        ),
        ({'type': 'PSNRLoss', 'eps': 0}, 'eps: 0 is not above 0'),
        ({'type': 'PSNRLoss', 'reduction': 'sum'}, "reduction: 'sum', wanted 'mean'"),
        ({'type': 'FFTLoss', 'reduction': 'none'}, "reduction: 'none', wanted 'mean'"),
    ],
)
def test_wrong_arguments_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        build_loss(options)


def test_an_output_that_halving_never_reaches_is_refused():
    loss = build_loss({'type': 'DerainL1Loss', 'target_resize': 'gaussian'})
    with pytest.raises(ValueError, match='never comes to the 6 x 4 of an output; choose bilinear'):
        loss([torch.zeros(1, 3, 4, 6), torch.zeros(1, 3, 16, 16)], torch.zeros(1, 3, 16, 16))
