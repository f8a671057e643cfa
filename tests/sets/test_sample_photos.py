import hashlib

import cv2
import numpy as np
import pytest
import skimage
from helpers import noise

from ddsa_arch.errors import InputError
from ddsa_arch.sets import sample_photos as module
from ddsa_arch.sets.sample_photos import TEST_PHOTOS, TRAIN_PHOTOS, sample_photos, split_tiles, write_tiles


def digests(folder):
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in folder.rglob('*') if p.is_file()}  # fmt: skip


# Photos


def test_photos_are_color_images_in_bgr():
    photos = sample_photos()
    assert set(photos) == {*TRAIN_PHOTOS, *TEST_PHOTOS}
    for photo in photos.values():
        assert photo.dtype == np.uint8
        assert photo.shape[2] == 3
        assert min(photo.shape[:2]) >= 256
        assert (photo[..., 0] != photo[..., 2]).mean() > 0.5
    left, right, _ = skimage.data.stereo_motorcycle()
    expected = {'astronaut': skimage.data.astronaut(), 'chelsea': skimage.data.chelsea(),
                'coffee': skimage.data.coffee(), 'motorcycle_left': left, 'motorcycle_right': right}  # fmt: skip
    for name, rgb in expected.items():
        assert np.array_equal(photos[name], rgb[..., ::-1])


def test_no_scene_is_in_training_and_test():
    train, test = ({name.split('_')[0] for name in names} for names in (TRAIN_PHOTOS, TEST_PHOTOS))
    assert len(train) >= 3
    assert len(test) >= 2
    assert not train & test


def test_photos_are_chosen_by_name():
    assert list(sample_photos(TEST_PHOTOS)) == list(TEST_PHOTOS)
    with pytest.raises(ValueError, match="'coffe'; did you mean 'coffee'"):
        sample_photos(['coffe'])


def test_a_missing_photo_names_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(module, '_photo_folder', lambda: tmp_path)
    with pytest.raises(InputError, match=r'astronaut\.png.*pip install'):
        sample_photos()


def test_a_missing_scikit_image_names_the_remedy(monkeypatch):
    monkeypatch.setattr(module, 'find_spec', lambda name: None)
    with pytest.raises(InputError, match='pip install'):
        sample_photos()


# Tiles


@pytest.mark.parametrize(('shape', 'tiles'), [((320, 320), 1), ((321, 320), 2), ((500, 741), 6), ((1, 7), 1)])
def test_tiles_cover_the_image_once(shape, tiles):
    image = noise(*shape)
    parts = split_tiles(image, 320)
    assert len(parts) == tiles
    sizes = np.array([p.shape[:2] for p in parts.values()])
    assert sizes.max() <= 320
    assert (sizes.max(axis=0) - sizes.min(axis=0) <= 1).all()
    rows = {}
    for name, part in parts.items():
        rows.setdefault(name.split('c')[0], []).append(part)
    assert np.array_equal(np.vstack([np.hstack(row) for row in rows.values()]), image)


# Files


def test_tiles_are_written_without_loss(tmp_path):
    photos = {'small': noise(40, 30), 'large': noise(50, 70)}
    paths = write_tiles(photos, tmp_path, tile_size=40)
    assert list(paths) == ['small', 'large_r0c0', 'large_r0c1', 'large_r1c0', 'large_r1c1']
    assert {path.relative_to(tmp_path).as_posix() for path in paths.values()} == set(digests(tmp_path))
    assert set(digests(tmp_path)) == {f'{stem}.png' for stem in paths}
    assert np.array_equal(cv2.imread(str(tmp_path / 'small.png')), photos['small'])
    assert np.array_equal(cv2.imread(str(tmp_path / 'large_r1c1.png')), photos['large'][25:, 35:])


def test_whole_photos_on_demand(tmp_path):
    assert list(write_tiles({'photo': noise(50, 400)}, tmp_path, tile_size=None)) == ['photo']
    assert cv2.imread(str(tmp_path / 'photo.png')).shape == (50, 400, 3)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'tile_size': 0}, 'tile size is 0'),
        ({'photos': {'good': noise(4, 4), '../a': noise(4, 4)}}, r"'\.\./a' is no file name"),
        ({'photos': {'good': noise(4, 4), 'a': noise(4, 4)[..., 0]}}, r"'a' is uint8 \(4, 4\); want uint8"),
        ({'photos': {'good': noise(4, 4), 'a': noise(4, 4) / 255}}, r"'a' is float64 \(4, 4, 3\); want uint8"),
    ],
)
def test_what_cannot_be_written_is_refused(change, message, tmp_path):
    arguments = {'photos': {'a': noise(4, 4)}, 'folder': tmp_path / 'out'} | change
    with pytest.raises(InputError, match=message):
        write_tiles(**arguments)
    assert not digests(tmp_path)
