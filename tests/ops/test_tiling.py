import math

import pytest
import torch

from ddsa_arch.ops.tiling import process_tiles, tile_starts, tile_weight


@pytest.mark.parametrize(
    ('length', 'starts'),
    [(128, [0]), (129, [0, 1]), (236, [0, 108]), (237, [0, 108, 109]), (480, [0, 108, 216, 324, 352])],
)
def test_tiles_start_as_the_published_script_has_them(length, starts):
    """IDT: 0, 108, 216 ... while start + 128 < length, and a last one at length - 128."""
    expected = [start for start in range(0, length, 108) if start + 128 < length] + [length - 128]
    assert expected == starts == tile_starts(length, 128, 108)


def test_tiles_that_nothing_changes_give_the_image_back():
    x = torch.rand(2, 3, 50, 41, dtype=torch.float64)
    for overlap in (0, 5, 15):
        for weight in ('uniform', 'centre', 'pyramid', 'first'):
            assert torch.allclose(process_tiles(lambda t: t, x, 16, overlap, weight), x, rtol=0, atol=1e-14)


def test_overlapping_tiles_are_averaged_with_their_weights():
    tiles = iter([torch.full((1, 1, 4, 4), 1.0), torch.full((1, 1, 4, 4), 3.0)])
    out = process_tiles(lambda _: next(tiles), torch.zeros(1, 1, 4, 6), 4, 2)
    assert out[0, 0, 0].tolist() == [1, 1, 2, 2, 3, 3]
    tiles = iter([torch.full((1, 1, 4, 4), 1.0), torch.full((1, 1, 4, 4), 3.0)])
    out = process_tiles(lambda _: next(tiles), torch.zeros(1, 1, 4, 6), 4, 2, 'centre')

    def weight(row, column):
        return 1 / math.sqrt((row - 2) ** 2 + (column - 2) ** 2 + 1e-3)

    for row in range(4):
        for column in (2, 3):
            first, second = weight(row, column), weight(row, column - 2)
            assert out[0, 0, row, column].item() == pytest.approx((first + 3 * second) / (first + second), rel=1e-5)


def test_the_first_tile_alone_counts_where_the_last_ones_reach_back():
    """NeRD-Rain: windows from the top left, then windows flush with the border, of which the new part is used."""
    numbers = iter(range(1, 7))
    out = process_tiles(lambda tile: torch.full_like(tile, next(numbers)), torch.zeros(1, 1, 7, 10), 4, 0, 'first')
    upper, lower = [1] * 4 + [2] * 4 + [3] * 2, [4] * 4 + [5] * 4 + [6] * 2
    assert out[0, 0].tolist() == [upper] * 4 + [lower] * 3


def test_the_centre_of_a_tile_counts_most():
    weight = tile_weight(128, 'centre')
    assert weight[64, 64].item() == pytest.approx(31.6, abs=0.05)
    assert weight.argmax() == 64 * 128 + 64


def test_a_pyramid_falls_to_the_edges():
    assert tile_weight(4, 'pyramid').tolist() == [[1, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]]
    assert tile_weight(3, 'pyramid')[1].tolist() == [2, 4, 2]


def test_what_cannot_be_tiled_is_refused():
    with pytest.raises(ValueError, match='40 x 10 is smaller than a tile of 16'):
        process_tiles(lambda t: t, torch.zeros(1, 3, 10, 40), 16)
    with pytest.raises(ValueError, match='overlap 16 is outside 0 to 15'):
        process_tiles(lambda t: t, torch.zeros(1, 3, 16, 16), 16, 16)
    with pytest.raises(ValueError, match="'gauss' is not known; choose one of 'uniform', 'centre'"):
        tile_weight(4, 'gauss')
