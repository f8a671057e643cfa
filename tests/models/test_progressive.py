import pytest
import torch

from ddsa_arch.errors import InputError
from ddsa_arch.models.progressive import ProgressivePatches

RESTORMER = {
    'iterations': [92000, 64000, 48000, 36000, 36000, 24000],
    'patch_sizes': [128, 160, 192, 256, 320, 384],
    'batch_sizes': [8, 5, 4, 2, 1, 1],
}


@pytest.mark.parametrize(
    ('iteration', 'batch', 'size'),
    [
        (1, 8, 128), (92000, 8, 128), (92001, 5, 160), (156000, 5, 160), (156001, 4, 192), (204001, 2, 256),
        (240001, 1, 320), (276000, 1, 320), (276001, 1, 384), (300000, 1, 384), (300001, 1, 384),
    ],
)  # fmt: skip
def test_restormers_stages(iteration, batch, size):
    """Published: switch after 92k, 156k, 204k, 240k, 276k."""
    rain = torch.zeros(8, 1, 384, 384)
    for image in ProgressivePatches(**RESTORMER).cut(iteration, rain, rain):
        assert image.shape == (batch, 1, size, size)


def test_all_images_are_cut_alike_and_what_is_drawn_depends_on_the_iteration_alone():
    x = torch.arange(4 * 12 * 12.0).reshape(4, 1, 12, 12)
    patches = ProgressivePatches([10], [5], [2], seed=3)
    rain, clean = patches.cut(4, x, x + 1)
    assert torch.equal(rain + 1, clean)
    patches.cut(5, x)
    assert torch.equal(patches.cut(4, x)[0], rain)
    seen = {tuple(ProgressivePatches([10], [5], [2], seed=3).cut(i, x)[0][:, 0, 0, 0].tolist()) for i in range(1, 11)}
    assert len(seen) > 5
    other = ProgressivePatches([10], [5], [2], seed=3, rank=1).cut(4, x)[0]
    assert not torch.equal(other, rain)


def test_no_image_is_taken_twice_and_the_window_is_one():
    x = torch.arange(6.0).reshape(6, 1, 1, 1) * 100 + torch.arange(9.0).reshape(1, 1, 3, 3)
    for iteration in range(1, 20):
        cut = ProgressivePatches([20], [2], [4]).cut(iteration, x)[0]
        assert len({int(v) // 100 for v in cut[:, 0, 0, 0]}) == 4
        assert len({int(v) % 100 for v in cut[:, 0, 0, 0]}) == 1


def test_accumulated_batches_keep_their_number():
    x = torch.zeros(6, 3, 8, 8)
    assert ProgressivePatches([20], [4], [2], parts=2).cut(1, x)[0].shape == (4, 3, 4, 4)
    assert ProgressivePatches([20], [8], [6], parts=1).cut(1, x)[0].shape == x.shape


def test_lists_of_unequal_length_are_refused():
    with pytest.raises(InputError, match='2 iterations, 1 patch_sizes and 1 batch_sizes'):
        ProgressivePatches([1, 2], [3], [4])
