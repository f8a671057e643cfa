import pytest
import torch

from ddsa_arch.ops.guided_filter import base_layer, box_mean


def slow_mean(x, radius):
    height, width = x.shape[-2:]
    out = torch.empty_like(x)
    for row in range(height):
        for column in range(width):
            rows = slice(max(0, row - radius), row + radius + 1)
            out[..., row, column] = x[..., rows, max(0, column - radius) : column + radius + 1].mean((-2, -1))
    return out


@pytest.mark.parametrize(('size', 'radius'), [((9, 12), 2), ((4, 30), 15), ((1, 1), 15), ((40, 3), 4)])
def test_the_mean_is_that_of_the_pixels_inside(size, radius):
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    assert torch.allclose(box_mean(x, radius), slow_mean(x, radius), rtol=0, atol=1e-14)


def test_the_base_is_the_papers_formula():
    """a = cov(I, I) / (var + eps), b = mean - a mean, q = mean(a) I + mean(b), window by window."""
    x = torch.rand(1, 2, 11, 8, dtype=torch.float64)
    mean = slow_mean(x, 3)
    a = (slow_mean(x * x, 3) - mean**2) / (slow_mean(x * x, 3) - mean**2 + 0.1)
    expected = slow_mean(a, 3) * x + slow_mean(mean - a * mean, 3)
    assert torch.allclose(base_layer(x, 3, 0.1), expected, rtol=0, atol=1e-14)


def test_a_flat_image_is_all_base_and_a_large_eps_blurs_twice():
    flat = torch.full((1, 3, 20, 20), 0.3, dtype=torch.float64)
    assert torch.allclose(base_layer(flat), flat, rtol=0, atol=1e-14)
    x = torch.rand(1, 1, 50, 60, dtype=torch.float64)
    assert torch.allclose(base_layer(x, 15, 1e9), box_mean(box_mean(x, 15), 15), rtol=0, atol=1e-8)
