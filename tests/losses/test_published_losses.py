"""The losses of the published training scripts, on tensors that anyone can draw again.

The expected values were computed with the published code, in float64.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from basicsr.losses import build_loss

from ddsa_arch.losses.edge_loss import laplacian, pyramid_edges
from ddsa_arch.losses.ssim_loss import ssim

SHAPE = (2, 3, 48, 64)


def drawn(seed, shape=SHAPE):
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).random(shape, np.float32))


@pytest.fixture(scope='module')
def pair():
    x = drawn(2026)
    y = (0.8 * x + 0.2 * drawn(2027)).float()
    return x.double(), y.double()


def loss(name, pair, **options):
    return build_loss({'type': name, **options})(*pair).item()


@pytest.mark.core
@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('SSIMLoss', -0.9549682301758465),
        ('DerainL1Loss', 0.06680062732841129),
        ('DerainCharbonnierLoss', 0.06682743913185991),
        ('EdgeLoss', 0.06244314396545154),
    ],
)
def test_the_published_values_are_reached(pair, name, value):
    assert loss(name, pair) == pytest.approx(value, rel=1e-7)


def test_the_edges_are_those_of_mprnet(pair):
    first = [-0.6312921691954134, -0.7308516490280629, -0.618059753060341, 0.024788823053240816]
    assert pyramid_edges(pair[0]).ravel()[:4].tolist() == pytest.approx(first, abs=1e-7)


def test_mprnets_loss_of_one_output(pair):
    total = loss('DerainCharbonnierLoss', pair) + loss('EdgeLoss', pair, loss_weight=0.05)
    assert total == pytest.approx(0.0699495963301325, rel=1e-7)


def test_elfs_loss_of_both_outputs(pair):
    """0.3 (char + 0.8 char_half) + 0.2 (edge + 0.8 edge_half) - 0.15 ssim."""
    restored, target = pair
    half_target = F.avg_pool2d(target, 2)
    half = (0.1 * drawn(2028, (2, 3, 24, 32)).double() + 0.9 * half_target).float().double()
    outputs = ([half, restored], target)
    assert loss('DerainCharbonnierLoss', outputs, output_weights=[1, 0]) == pytest.approx(0.02617597655104244, rel=1e-7)
    assert loss('EdgeLoss', outputs, output_weights=[1, 0]) == pytest.approx(0.024252111422877923, rel=1e-7)
    total = (
        loss('DerainCharbonnierLoss', outputs, loss_weight=0.3, output_weights=[0.8, 1])
        + loss('EdgeLoss', outputs, loss_weight=0.2, output_weights=[0.8, 1])
        + loss('SSIMLoss', outputs, loss_weight=0.15, output_weights=[0, 1])
    )
    assert total == pytest.approx(-0.10054580179381803, rel=1e-7)


def test_ssim_is_that_of_a_window_at_each_pixel():
    x, y = drawn(1, (1, 2, 13, 12)).double(), drawn(2, (1, 2, 13, 12)).double()
    weights = [[math.exp(-(r * r + c * c) / 4.5) for c in range(-5, 6)] for r in range(-5, 6)]
    total = sum(map(sum, weights))
    values = []
    for channel in range(2):
        for row in range(13):
            for column in range(12):
                moments = [0.0] * 5
                for r in range(-5, 6):
                    for c in range(-5, 6):
                        if 0 <= row + r < 13 and 0 <= column + c < 12:
                            a, b = x[0, channel, row + r, column + c].item(), y[0, channel, row + r, column + c].item()
                            w = weights[r + 5][c + 5] / total
                            moments = [m + w * v for m, v in zip(moments, (a, b, a * a, b * b, a * b), strict=True)]
                a, b, aa, bb, ab = moments
                values.append(
                    (2 * a * b + 1e-4) * (2 * (ab - a * b) + 9e-4)
                    / ((a * a + b * b + 1e-4) * (aa - a * a + bb - b * b + 9e-4))
                )  # fmt: skip
    assert ssim(x, y).item() == pytest.approx(sum(values) / len(values), rel=1e-10)
    assert ssim(x, x).item() == pytest.approx(1, abs=1e-12)


def test_the_laplacian_is_mspfns():
    x = torch.zeros(1, 2, 5, 5)
    x[:, :, 2, 2] = 1
    assert laplacian(x)[0, 1].tolist() == [
        [0, 0, 0, 0, 0], [0, -1, -1, -1, 0], [0, -1, 8, -1, 0], [0, -1, -1, -1, 0], [0, 0, 0, 0, 0]
    ]  # fmt: skip
    assert laplacian(torch.ones(1, 1, 3, 3))[0, 0].tolist() == [[5, 3, 5], [3, 0, 3], [5, 3, 5]]  # zeros around it
    value = loss('EdgeLoss', (x, torch.zeros_like(x)), kind='laplacian', eps=0)
    assert value == pytest.approx(16 / 25)
    with pytest.raises(ValueError, match="'sobel' is not known; choose one of 'pyramid', 'laplacian'"):
        build_loss({'type': 'EdgeLoss', 'kind': 'sobel'})


def test_squares_are_averaged():
    assert loss('DerainMSELoss', (torch.tensor([[[[0.0, 3.0]]]]), torch.zeros(1, 1, 1, 2))) == 4.5


@pytest.mark.parametrize('name', ['DerainL1Loss', 'DerainMSELoss', 'DerainCharbonnierLoss', 'EdgeLoss', 'SSIMLoss'])
def test_every_loss_has_a_gradient_and_none_at_equal_images(name):
    x = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    output = x.clone().requires_grad_()
    build_loss({'type': name})(output, x).backward()
    assert output.grad.abs().max() < 1e-6
    output = torch.rand(1, 3, 16, 16, dtype=torch.float64).requires_grad_()
    build_loss({'type': name})(output, x).backward()
    assert (output.grad != 0).all()


def test_smaller_outputs_meet_a_smaller_target():
    target = torch.rand(1, 3, 8, 8)
    outputs = [F.avg_pool2d(target, 2), target]
    assert loss('DerainL1Loss', (outputs, target)) == pytest.approx(0, abs=1e-7)
