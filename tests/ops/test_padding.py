import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ddsa_arch.ops.padding import crop_to, pad_square, pad_to, pad_to_multiple


@pytest.mark.parametrize(('height', 'width'), [(9, 9), (13, 17), (16, 9), (9, 24), (31, 33)])
def test_padding_is_torchs_reflection_where_that_works(height, width):
    x = torch.rand(2, 3, height, width)
    expected = F.pad(x, (0, -width % 8, 0, -height % 8), mode='reflect')
    assert torch.equal(pad_to_multiple(x, 8), expected)


@pytest.mark.core
@pytest.mark.parametrize(
    ('height', 'width'), [(1, 1), (1, 5), (5, 1), (2, 3), (3, 2), (2, 2), (3, 3), (1, 8), (8, 1), (7, 100), (65, 1)]
)
@pytest.mark.parametrize('multiple', [8, 128])
def test_tiny_images_are_reflected_again_as_numpy_does(height, width, multiple):
    x = torch.rand(1, 2, height, width)
    bottom, right = -height % multiple, -width % multiple
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (0, bottom), (0, right)), 'reflect')
    assert np.array_equal(pad_to_multiple(x, multiple).numpy(), expected)


def test_a_row_of_three_goes_to_and_fro():
    x = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    padded = pad_to_multiple(x, 8)
    assert padded.shape == (1, 1, 8, 8)
    assert padded[0, 0].tolist() == [[1, 2, 3, 2, 1, 2, 3, 2]] * 8


@pytest.mark.parametrize(('size', 'multiple'), [((16, 24), 8), ((5, 7), 1), ((128, 128), 128)])
def test_a_size_that_fits_is_left_alone(size, multiple):
    x = torch.rand(1, 3, *size)
    assert pad_to_multiple(x, multiple) is x


@pytest.mark.parametrize(('height', 'width'), [(1, 1), (7, 9), (8, 8), (23, 40)])
def test_crop_undoes_padding(height, width):
    x = torch.rand(2, 3, height, width)
    assert torch.equal(crop_to(pad_to_multiple(x, 16), height, width), x)


def test_gradient_flows_back_to_each_pixel_as_often_as_it_was_copied():
    x = torch.zeros(1, 1, 3, 3, requires_grad=True)
    pad_to_multiple(x, 4).sum().backward()
    assert x.grad[0, 0].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]  # row and column 1 are copied once each


def test_a_side_that_is_long_enough_stays():
    x = torch.rand(1, 3, 5, 9)
    assert pad_to(x, 8, 8).shape == (1, 3, 8, 9)
    assert torch.equal(pad_to(x, 3, 9), x)


@pytest.mark.parametrize('size', [(5, 9), (9, 5), (16, 16), (1, 17)])
def test_an_image_stands_in_the_middle_of_a_black_square(size):
    """Uformer's test script: the side is the next multiple of the longer one."""
    x = torch.rand(2, 3, *size) + 0.1
    square, top, left = pad_square(x, 16)
    side = 32 if max(size) == 17 else 16
    assert square.shape == (2, 3, side, side)
    assert (top, left) == ((side - size[0]) // 2, (side - size[1]) // 2)
    assert torch.equal(crop_to(square, *size, top, left), x)
    assert square.sum().item() == pytest.approx(x.sum().item(), rel=1e-5)
