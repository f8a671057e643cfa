from pathlib import Path

import numpy as np
import pytest
import torch

from ddsa_arch.files.images import read_image
from ddsa_arch.models.kept_images import KeptImage, drop_later_strips


def options(**changes):
    return {'is_train': True, 'rank': 0, 'world_size': 1, 'val': {'suffix': None}, 'logger': {'strips': 2},
            'path': {'experiments_root': 'run', 'visualization': 'run/visualization'}} | changes  # fmt: skip


@pytest.mark.parametrize(
    ('rank', 'world_size', 'strips', 'kept'),
    [(0, 1, 3, [0, 1, 2]), (0, 2, 3, [0, 1]), (1, 2, 3, [0]), (3, 4, 3, []), (0, 1, 0, []), (0, 1, None, [])],
)
def test_the_first_images_of_a_set_are_kept_whoever_derains_them(rank, world_size, strips, kept):
    """Each process looks at every world_size-th image; together they keep the first three."""
    opt = options(rank=rank, world_size=world_size, logger={'strips': strips})
    assert [place for place in range(6) if KeptImage.of(opt, 'set', place, 'a', 500, False).strip] == kept


def test_places_of_the_files():
    assert KeptImage.of(options(), 'set', 0, 'a', 500, True) == KeptImage(
        Path('run/visualization/a/a_500.png'), Path('run/validation/strips/set/a_500.png')
    )
    testing = options(is_train=False)
    assert KeptImage.of(testing, 'set', 0, 'a', 'x', True) == KeptImage(Path('run/visualization/set/a.png'))
    testing['val']['suffix'] = 'mine'
    assert KeptImage.of(testing, 'set', 0, 'a', 'x', True).derained == Path('run/visualization/set/a_mine.png')
    assert KeptImage.of(testing, 'set', 0, 'a', 'x', False) == KeptImage()


def test_the_rainy_image_and_the_target_lie_beside(tmp_path):
    derained, target = (np.full((2, 3, 3), value, np.uint8) for value in (7, 9))
    rainy = torch.zeros(1, 3, 2, 3)
    rainy[:, 0] = 1  # red
    for i in (5, 10):
        KeptImage(strip=tmp_path / f'a_b_{i}.png').write(derained + i, rainy, target)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f'a_b_{n}.png' for n in ('10', '5', 'rainy', 'target')]
    assert (read_image(tmp_path / 'a_b_10.png') == 17).all()
    assert (read_image(tmp_path / 'a_b_rainy.png') == (0, 0, 255)).all()
    assert (read_image(tmp_path / 'a_b_target.png') == 9).all()


def test_images_of_later_iterations_are_dropped(tmp_path):
    folder = tmp_path / 'validation' / 'strips' / 'set'
    image = np.zeros((2, 2, 3), np.uint8)
    for label in (5, 10, 15, 'target'):
        KeptImage(strip=folder / f'a_20_{label}.png').write(image, torch.zeros(1, 3, 2, 2), None)
    drop_later_strips(tmp_path, 10)
    assert sorted(p.name for p in folder.iterdir()) == [f'a_20_{n}.png' for n in ('10', '5', 'rainy', 'target')]
