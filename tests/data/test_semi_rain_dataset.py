import itertools
import pickle
import random
import shutil

import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from helpers import same
from torch.utils.data import DataLoader

from ddsa_arch.data.keyed_sampler import KeyedSampler
from ddsa_arch.data.paired_rain_dataset import PairedRainDataset
from ddsa_arch.data.semi_rain_dataset import SemiRainDataset
from ddsa_arch.errors import InputError
from ddsa_arch.files.images import images_by_stem, write_image
from ddsa_arch.files.matching import Pairs
from ddsa_arch.sets.pair_stores import write_pair_stores

SIZE = 16


def map_of(number, height, width):
    """An image whose pixels tell its number (red), their row (blue) and their column (green)."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, number)], axis=-1).astype(np.uint8)


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Three pairs in ``input`` and ``target``, four photos of several sizes in ``real`` and ``real.lmdb``."""
    folder = tmp_path_factory.mktemp('semi')
    for i in range(3):
        write_image(folder / 'input' / f'{i}.png', map_of(i, 40, 33))
        write_image(folder / 'target' / f'{i}.png', map_of(100 + i, 40, 33))
    for i in range(4):
        write_image(folder / 'real' / f'photo-{i}.png', map_of(200 + i, 24 + 9 * i, 50))
    found = images_by_stem(folder / 'real')
    (store, _), _ = write_pair_stores(Pairs(found, found), folder / 'stores')
    shutil.move(store, folder / 'real.lmdb')
    return folder


def options(folder, phase='train', **more):
    roots = {f'dataroot_{key}': str(folder / name) for key, name in (('lq', 'input'), ('gt', 'target'))}
    roots['dataroot_real'] = str(folder / 'real')
    return {'name': 's', 'type': 'SemiRainDataset', 'phase': phase, 'gt_size': SIZE, 'seed': 7, **roots, **more}


def decoded(patch):
    """Number of the image that a ``(3, SIZE, SIZE)`` patch was cut out of, its window's place, and its flips."""
    number, columns, rows = (patch * 255).round().int().numpy()
    flips = rows[0, 0] > rows[-1, 0], columns[0, 0] > columns[0, -1]
    expected = map_of(number[0, 0], rows.max() + 1, columns.max() + 1)[rows.min() :, columns.min() :]
    expected = np.flip(expected, [axis for axis, flipped in enumerate(flips) if flipped])
    assert np.array_equal(np.stack([rows, columns, number], axis=-1), expected)
    return int(number[0, 0]), (int(rows.min()), int(columns.min())), tuple(map(bool, flips))


def test_basicsr_builds_it_and_it_says_how_many_channels_a_network_sees(images):
    dataset = build_dataset(options(images))
    assert isinstance(dataset, SemiRainDataset)
    assert dataset[3]['lq'].shape == (SemiRainDataset.input_channels, SIZE, SIZE)
    assert dataset[3]['gt'].shape == (3, SIZE, SIZE)
    assert len(dataset) == 3


CODES = [3 * place + place % 3 for place in range(1, 121)]  # 120 samples of a run


def test_the_pair_is_that_of_the_paired_set_and_the_photo_a_patch_of_its_own(images):
    semi, paired = SemiRainDataset(options(images)), PairedRainDataset(options(images))
    found = []
    for code in CODES:
        item, pair = semi[code], paired[code]
        assert list(item) == ['lq', 'gt', 'lq_path', 'gt_path']
        assert item['lq'].dtype == torch.float32
        assert item['lq'].is_contiguous()
        assert same(item | {'lq': item['lq'][:3]}, pair)
        found.append(decoded(item['lq'][3:]))
    numbers, places, flips = (set(column) for column in zip(*found, strict=True))
    assert numbers == {200, 201, 202, 203}
    assert flips == set(itertools.product((False, True), repeat=2))
    assert len(places) > 100
    for number in numbers:  # windows reach the edges
        tops = {place[0] for n, place, _ in found if n == number}
        assert max(tops) > 0.7 * (24 + 9 * (number - 200) - SIZE)


def test_which_photo_is_drawn_and_where_says_nothing_about_the_pair(images):
    dataset = SemiRainDataset(options(images, dataroot_real=str(images / 'target')))
    drawn = [(decoded(lq[:3]), decoded(lq[3:])) for lq in (dataset[code]['lq'] for code in CODES)]
    numbers = [[photo[0] for _, photo in drawn]]
    sides = [[patch[place][1][axis] for patch in drawn] for place in (0, 1) for axis in (0, 1)]
    flips = [[patch[place][2][axis] for patch in drawn] for place in (0, 1) for axis in (0, 1)]
    table = np.corrcoef(np.array(numbers + sides + flips, float))
    assert np.abs(table - np.eye(9)).max() < 0.35


def test_flips_can_be_switched_off_for_both(images):
    dataset = SemiRainDataset(options(images, use_hflip=False, use_vflip=False))
    assert {decoded(dataset[code]['lq'][3:])[2] for code in CODES} == {(False, False)}


def test_a_small_photo_is_extended(images):
    item = SemiRainDataset(options(images, gt_size=64))[5]
    assert item['lq'].shape == (6, 64, 64)


def test_outside_training_it_is_the_paired_set_and_needs_no_photos(images):
    for phase in ('val', 'test'):
        for more in ({}, {'dataroot_real': None}, {'dataroot_real': 'nowhere'}):
            semi = SemiRainDataset(options(images, phase, **more))
            paired = PairedRainDataset(options(images, phase))
            assert all(same(a, b) for a, b in zip(semi, paired, strict=True))
            assert semi[0]['lq'].shape == (3, 40, 33)


def test_a_store_gives_the_same_items(images):
    folder, store = (
        SemiRainDataset(options(images, dataroot_real=str(images / name))) for name in ('real', 'real.lmdb')
    )
    assert all(same(folder[code], store[code]) for code in range(3, 15))


# Reproducibility


def epoch(images, workers, number=0, **more):
    dataset = SemiRainDataset(options(images, **more))
    sampler = KeyedSampler(len(dataset), seed=7)
    sampler.set_epoch(number)
    return list(DataLoader(dataset, 2, sampler=sampler, num_workers=workers))


@pytest.mark.parametrize('workers', [1, 2])
def test_items_do_not_depend_on_the_number_of_workers(workers, images):
    more = {'dataroot_real': str(images / 'real.lmdb')}
    expected = epoch(images, 0, **more)
    assert len(expected) == 2
    assert all(same(a, b) for a, b in zip(expected, epoch(images, workers, **more), strict=True))


def test_the_same_place_gives_the_same_item_whatever_was_drawn_before(images):
    dataset = SemiRainDataset(options(images))
    item = dataset[3 * 5 + 2]
    random.random(), torch.rand(1), dataset[0]
    assert same(dataset[3 * 5 + 2], item)
    assert same(pickle.loads(pickle.dumps(dataset))[3 * 5 + 2], item)
    assert same(SemiRainDataset(options(images, cache_images=True))[3 * 5 + 2], item)


def test_other_places_and_seeds_give_other_photos(images):
    patches = {
        SemiRainDataset(options(images, seed=seed))[3 * place]['lq'][3:].numpy().tobytes()
        for seed in (7, 8)
        for place in range(1, 9)
    }
    assert len(patches) == 16


# What a user can do wrong


@pytest.mark.parametrize(
    ('value', 'words'),
    [
        (None, 'datasets.train.dataroot_real: not given; write the folder or LMDB of the images'),
        ('nowhere', 'datasets.train.dataroot_real: no folder nowhere'),
    ],
)
def test_missing_photos_are_named_by_their_option(value, words, images):
    with pytest.raises(InputError) as error:
        SemiRainDataset(options(images, dataroot_real=value))
    assert str(error.value) == words


def test_a_broken_photo_is_named_at_access(images, tmp_path):
    write_image(tmp_path / 'real' / 'a.png', np.zeros((20, 20, 3), np.uint8))
    dataset = SemiRainDataset(options(images, dataroot_real=str(tmp_path / 'real')))
    path = tmp_path / 'real' / 'a.png'
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=r'real.a\.png: truncated or not an image'):
        dataset[3]


def test_photos_are_not_looked_for_in_the_list_of_images_to_leave_out(images, tmp_path):
    for i in (0, 1):
        write_image(tmp_path / 'real' / f'{i}.png', np.full((20, 20, 3), 100 * i, np.uint8))
    (tmp_path / 'out.txt').write_text('0\n', encoding='utf-8')
    opt = options(images, dataroot_real=str(tmp_path / 'real'), exclude_keys=str(tmp_path / 'out.txt'))
    dataset = SemiRainDataset(opt)
    assert dataset.stems == ['1', '2']
    seen = {round(dataset[code]['lq'][3:].max().item() * 255) for code in range(2, 30)}
    assert seen == {0, 100}
