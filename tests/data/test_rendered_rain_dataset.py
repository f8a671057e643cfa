import numpy as np
import pytest
import torch
from basicsr.data import build_dataset

from ddsa_arch.data.keyed_sampler import KeyedSampler
from ddsa_arch.errors import InputError
from ddsa_arch.files.images import write_image


@pytest.fixture
def clean(tmp_path, photo):
    for i in range(3):
        write_image(tmp_path / 'clean' / f'{i}.png', photo[i * 40 : i * 40 + 64, i * 80 : i * 80 + 80])
    return tmp_path / 'clean'


def dataset(clean, **more):
    opt = {'name': 'rendered', 'type': 'RenderedRainDataset', 'phase': 'train', 'gt_size': 32}
    return build_dataset(opt | {'dataroot_gt': str(clean)} | more)


def test_rain_brightens_and_is_new_each_time_but_the_same_for_the_same_place(clean):
    rendered = dataset(clean)
    first, again, later = rendered[3], rendered[3], rendered[6]
    assert torch.equal(first['lq'], again['lq'])
    assert not torch.equal(first['lq'], later['lq'])
    for item in (first, later):
        assert item['lq'].shape == item['gt'].shape == (3, 32, 32)
        assert (item['lq'] >= item['gt']).all()  # light rain has no veil
        assert (item['lq'] > item['gt']).any()


def test_every_epoch_brings_other_rain_on_the_same_photos(clean):
    rendered, sampler = dataset(clean), KeyedSampler(3)
    epochs = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        epochs.append({rendered[code]['gt_path']: rendered[code]['lq'] for code in sampler})
    assert epochs[0].keys() == epochs[1].keys()
    assert not any(torch.equal(epochs[0][k], epochs[1][k]) for k in epochs[0])


def test_outside_training_a_photo_is_whole_and_its_rain_always_the_same(clean):
    a, b = dataset(clean, phase='val'), dataset(clean, phase='val')
    assert a[0]['lq'].shape == (3, 64, 80)
    assert all(torch.equal(x['lq'], y['lq']) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a[0]['lq'] - a[0]['gt'], a[1]['lq'] - a[1]['gt'])


def test_streak_layers_from_files_are_screened_over_the_photo(clean, tmp_path):
    layer = np.zeros((64, 80, 3), np.uint8)
    layer[:, 10] = 100
    write_image(tmp_path / 'streaks' / 's.png', layer)
    item = dataset(clean, phase='val', dataroot_streaks=str(tmp_path / 'streaks'))[0]
    s = layer[:, :, 0] / 255
    expected = item['gt'].numpy() + s - item['gt'].numpy() * s
    assert np.abs(item['lq'].numpy() - expected).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize(
    ('more', 'words'),
    [
        ({'style': 'hevy'}, "no rain style 'hevy'; did you mean 'heavy'?"),
        ({'gt_size': None}, 'gt_size: None is no patch size'),
        ({'dataroot_gt': 'nowhere'}, 'datasets.train.dataroot_gt: no folder nowhere'),
        ({'dataroot_streaks': 'nowhere'}, 'datasets.train.dataroot_streaks: no folder nowhere'),
    ],
)
def test_wrong_options_are_named(clean, more, words):
    with pytest.raises(InputError) as error:
        dataset(clean, **more)
    assert words in str(error.value)
