from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.utils import tensor2img
from torch import nn

from ddsa_arch.errors import InputError
from ddsa_arch.models.restore import Recipe, final_output, restore, stretch, to_uint8
from ddsa_arch.options.loading import load_options


class Shifting(nn.Module):
    """Returns its input as the last of two outputs, and insists on its size multiple."""

    size_multiple = 8

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        assert x.shape[-2] % 8 == 0
        assert x.shape[-1] % 8 == 0
        return [torch.zeros_like(x), self.dropout(x)]


@pytest.mark.core
def test_padding_is_added_and_removed_and_the_last_output_taken():
    for size in [(1, 1), (1, 9), (8, 16), (13, 31)]:
        x = torch.rand(2, 3, *size)
        assert torch.equal(restore(Shifting(), x), x)


def test_the_mode_of_the_network_is_kept():
    net = Shifting().train()
    restore(net, torch.rand(1, 3, 4, 4))
    assert net.training
    assert not restore(net, torch.rand(1, 3, 4, 4)).requires_grad


def test_the_final_output_of_one_tensor_is_itself():
    x = torch.rand(1)
    assert final_output(x) is x
    assert final_output([torch.zeros(1), x]) is x


class Seen(nn.Module):
    """Keeps what it is given, and gives it back."""

    size_multiple = 4

    def __init__(self):
        super().__init__()
        self.inputs = []

    def forward(self, x):
        self.inputs.append(x.clone())
        return x


class OneSize(Seen):
    fixed_size = 16


def test_a_square_of_black_surrounds_the_image_where_the_recipe_says_so():
    net, x = Seen(), torch.rand(1, 3, 5, 9)
    assert torch.equal(restore(net, x, Recipe(pad='square', size_multiple=8)), x)
    seen = net.inputs[0]
    assert seen.shape == (1, 3, 16, 16)
    assert torch.equal(seen[..., 5:10, 3:12], x)
    assert seen.sum() == pytest.approx(x.sum().item())


@pytest.mark.parametrize('size', [(16, 16), (3, 40), (25, 19), (1, 1)])
def test_a_network_of_one_size_gets_tiles(size):
    net, x = OneSize(), torch.rand(2, 3, *size)
    assert torch.allclose(restore(net, x, Recipe(tile_overlap=4, tile_weight='centre')), x, atol=1e-6)
    assert {tuple(seen.shape) for seen in net.inputs} == {(2, 3, 16, 16)}
    columns = 1 if size[1] <= 16 else 2 if size[1] <= 28 else 3
    rows = 1 if size[0] <= 16 else 2
    assert len(net.inputs) == rows * columns


class LessItsMean(nn.Module):
    """A network that sees all of its image at once, as attention over all pixels does."""

    def forward(self, x):
        return x - x.mean(dim=(-2, -1), keepdim=True)


@pytest.mark.parametrize(('height', 'width'), [(300, 520), (256, 300), (512, 256), (600, 700)])
def test_nerd_rain_is_tested_in_windows_flush_with_the_border(height, width):
    """Whole windows first, then the new part of those at the right, at the bottom, and in the corner."""
    path = Path(__file__).resolve().parents[2] / 'options' / 'test' / 'NeRDRain_benchmarks.yml'
    recipe, net, side = Recipe(**load_options(path, False)['val']['restore']), LessItsMean(), 256
    x = torch.rand(1, 3, height, width)
    rows, columns = height // side * side, width // side * side
    expected = torch.full_like(x, float('nan'))
    for top in range(0, rows, side):
        for left in range(0, columns, side):
            window = (..., slice(top, top + side), slice(left, left + side))
            expected[window] = net(x[window])
        if columns < width:
            strip = net(x[..., top : top + side, width - side :])
            expected[..., top : top + side, columns:] = strip[..., columns - width :]
    if rows < height:
        for left in range(0, columns, side):
            strip = net(x[..., height - side :, left : left + side])
            expected[..., rows:, left : left + side] = strip[..., rows - height :, :]
        if columns < width:
            corner = net(x[..., height - side :, width - side :])
            expected[..., rows:, columns:] = corner[..., rows - height :, columns - width :]
    assert torch.equal(restore(net, x, recipe), expected)


def test_any_network_can_be_given_tiles():
    net, x = Seen(), torch.rand(1, 3, 10, 30)
    assert torch.allclose(restore(net, x, Recipe(tile_size=12, tile_overlap=2)), x, atol=1e-6)
    assert {tuple(seen.shape[-2:]) for seen in net.inputs} == {(12, 12)}
    with pytest.raises(InputError, match=r'val.restore.tile_size: 13 is not a multiple of 4.* try 16'):
        restore(net, x, Recipe(tile_size=13, tile_overlap=2))
    with pytest.raises(InputError, match=r'val.restore.tile_overlap: 20 is not below the side of a tile, 16; try 2'):
        restore(net, x, Recipe(tile_size=16))


def test_batch_statistics_are_those_of_each_image_and_leave_the_network_as_it_was():
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm2d(3)).eval()
    net[0].running_mean.fill_(5.0)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    x = torch.rand(2, 3, 6, 7, dtype=torch.float64)
    out = restore(net.double(), x, Recipe(batch_statistics=True))
    mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), unbiased=False, keepdim=True)
    assert torch.allclose(out, (x - mean) / (variance + 1e-5).sqrt(), atol=1e-12)
    assert all(torch.equal(before[k].to(v.dtype), v) for k, v in net.state_dict().items())
    assert (restore(net, x) < 0).all()  # its own statistics again


def test_the_statistics_come_back_when_the_network_fails():
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x):
            raise RuntimeError('no')

    net = Failing()
    with pytest.raises(RuntimeError, match='no'):
        restore(net, torch.rand(1, 3, 4, 4), Recipe(batch_statistics=True))
    assert net.norm.running_mean is not None


def test_images_are_stretched_one_by_one():
    x = torch.tensor([-1.0, 0.0, 3.0, 2.0, 2.0, 2.0]).reshape(2, 3, 1, 1)
    assert stretch(x).flatten().tolist() == [0, 0.25, 1, 0, 0, 0]
    assert torch.equal(restore(Seen(), x, Recipe(output_range='stretch')), stretch(x))


def test_cycle_spinning_takes_the_mean_over_shifts():
    class Shifted(nn.Module):
        def forward(self, x):
            return x * torch.arange(x.shape[-1], dtype=x.dtype)  # what is to the right counts more

    x = torch.ones(1, 3, 4, 6)
    out = restore(Shifted(), x, Recipe(cycle_spin=2))
    expected = (torch.arange(6.0) + torch.arange(6.0).roll(-2) + torch.arange(6.0).roll(-4)) / 3
    assert torch.allclose(out, expected.expand_as(out))


def test_pictures_are_rounded_as_basicsr_does_or_truncated():
    x = torch.tensor([0.0, 0.4999 / 255, 0.5 / 255, 1.6 / 255, 1.2, -3.0]).reshape(1, 3, 1, 2)
    assert to_uint8(x)[0].T[::-1].flatten().tolist() == [0, 0, 0, 2, 255, 0]
    assert to_uint8(x, 'truncate')[0].T[::-1].flatten().tolist() == [0, 0, 0, 1, 255, 0]
    x = torch.rand(1, 3, 20, 30) * 1.4 - 0.2
    assert np.array_equal(to_uint8(x), tensor2img(x))
    assert np.array_equal(to_uint8(x[0]), tensor2img(x))
