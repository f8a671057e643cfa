import itertools
import os
import pickle
import random
import shutil
import traceback

import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from helpers import ORIENTATION, noise, same
from PIL import Image, ImageFile
from torch.utils.data import DataLoader

from ddsa_arch.data.image_source import header_size, to_tensor
from ddsa_arch.data.keyed_sampler import KeyedSampler
from ddsa_arch.data.paired_rain_dataset import PairedRainDataset
from ddsa_arch.errors import InputError, clear_message
from ddsa_arch.files.images import images_by_stem, read_image, write_image
from ddsa_arch.files.matching import Pairs
from ddsa_arch.sets.pair_stores import write_pair_stores

LOSSLESS = ['png', 'webp', 'bmp', 'tif']
STEMS = ['r-1', 'r-2', 'r-3', 'r-10']  # in natural order


def options(folder, phase='train', **more):
    roots = {'dataroot_lq': str(folder / 'input'), 'dataroot_gt': str(folder / 'target')}
    return {'name': 'pairs', 'type': 'PairedRainDataset', 'phase': phase, 'scale': 1, 'gt_size': 16, **roots, **more}


def stores(folder):
    return {'dataroot_lq': str(folder / 'input.lmdb'), 'dataroot_gt': str(folder / 'target.lmdb')}


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
    """A folder with ``input`` and ``target``, four PNG pairs of several sizes, and their LMDBs."""
    folder = tmp_path_factory.mktemp('dataset')
    for i, stem in enumerate(STEMS):
        write_image(folder / 'input' / f'{stem}.png', noise(40 + i, 33, i))
        write_image(folder / 'target' / f'{stem}.png', noise(40 + i, 33, i) // 2)  # pixels tell the pair
    write_pair_stores(Pairs(images_by_stem(folder / 'input'), images_by_stem(folder / 'target')), folder)
    return folder


@pytest.fixture
def own_pairs(pairs, tmp_path):
    """A copy of the two folders for a test that spoils it."""
    for side in ('input', 'target'):
        shutil.copytree(pairs / side, tmp_path / side)
    return tmp_path


def expected_tensor(path):
    """What Pillow reads, by the item's contract."""
    with Image.open(path) as image:
        return torch.tensor(np.asarray(image.convert('RGB')), dtype=torch.float32).permute(2, 0, 1) / 255


# The item


def test_basicsr_builds_it_by_its_name(pairs):
    assert isinstance(build_dataset(options(pairs)), PairedRainDataset)


@pytest.mark.core
def test_validation_item_is_the_whole_pair(pairs):
    dataset = PairedRainDataset(options(pairs, 'val'))
    assert len(dataset) == 4
    for index, stem in enumerate(STEMS):
        item = dataset[index]
        assert list(item) == ['lq', 'gt', 'lq_path', 'gt_path']
        assert item['lq_path'] == str(pairs / 'input' / f'{stem}.png')
        assert item['gt_path'] == str(pairs / 'target' / f'{stem}.png')
        assert item['lq'].dtype == torch.float32
        assert item['lq'].is_contiguous()
        assert torch.equal(item['lq'], expected_tensor(item['lq_path']))
        assert torch.equal(item['gt'], expected_tensor(item['gt_path']))


def test_tensor_is_rgb_in_0_1():
    image = np.array([[[255, 51, 0]]], np.uint8)  # B, G, R
    assert to_tensor(image).flatten().tolist() == pytest.approx([0, 0.2, 1])


@pytest.mark.core
def test_training_item_is_an_aligned_window_with_the_same_flips(pairs):
    dataset = PairedRainDataset(options(pairs))
    flips_seen = set()
    for place, index in itertools.product(range(1, 13), range(4)):
        item = dataset[place * 4 + index]
        lq = (item['lq'].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        gt = (item['gt'].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        assert lq.shape == (16, 16, 3)
        assert np.array_equal(gt, lq // 2)
        whole = (expected_tensor(item['lq_path']).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        windows = np.lib.stride_tricks.sliding_window_view(whole, (16, 16, 3)).reshape(-1, 16, 16, 3)
        found = [axes for axes in ((), (0,), (1,), (0, 1)) if (windows == np.flip(lq, axes)).all((1, 2, 3)).any()]
        assert len(found) == 1
        flips_seen.add(found[0])
    assert flips_seen == {(), (0,), (1,), (0, 1)}


def test_flips_can_be_switched_off(pairs):
    dataset = PairedRainDataset(options(pairs, gt_size=40, use_hflip=False, use_vflip=False))
    whole = np.pad(read_image(pairs / 'input' / 'r-1.png'), ((0, 0), (0, 7), (0, 0)), 'reflect')
    for place in range(1, 9):
        assert torch.equal(dataset[place * 4]['lq'], to_tensor(whole))


def test_image_smaller_than_the_patch_is_reflected(pairs):
    item = PairedRainDataset(options(pairs, gt_size=64, use_hflip=False, use_vflip=False))[4 + 1]
    for name, side in (('lq', 'input'), ('gt', 'target')):
        image = read_image(pairs / side / 'r-2.png')  # 41 x 33
        whole = np.pad(image, ((0, 64 - 41), (0, 64 - 33), (0, 0)), 'reflect')
        assert torch.equal(item[name], to_tensor(whole))


def test_rainy_images_alone_serve_outside_training(pairs):
    dataset = PairedRainDataset(options(pairs, 'test', dataroot_gt=None))
    item = dataset[3]
    assert list(item) == ['lq', 'lq_path']
    assert torch.equal(item['lq'], expected_tensor(pairs / 'input' / 'r-10.png'))


def test_loop_over_the_set_ends(pairs):
    dataset = PairedRainDataset(options(pairs, 'val'))
    seen = [item['lq_path'] for item in itertools.islice(dataset, 9)]
    assert seen == [str(pairs / 'input' / f'{stem}.png') for stem in STEMS]
    assert len(list(itertools.islice(PairedRainDataset(options(pairs)), 9))) == 4


def test_last_item_can_be_asked_for_as_usual(pairs):
    assert PairedRainDataset(options(pairs, 'val'))[-1]['lq_path'].endswith('r-10.png')
    assert PairedRainDataset(options(pairs))[-1]['lq_path'].endswith('r-10.png')


def test_options_of_the_caller_are_left_alone(pairs):
    given = options(pairs, io_backend={'type': 'lmdb'})
    before = pickle.dumps(given)
    PairedRainDataset(given)[0]
    assert pickle.dumps(given) == before


# Formats


@pytest.mark.parametrize(('lq', 'gt'), [*itertools.permutations(LOSSLESS, 2), ('jpg', 'png')])
def test_suffixes_may_differ_and_lmdbs_give_the_same_items(lq, gt, tmp_path):
    for i, stem in enumerate(['a', 'b c']):
        write_image(tmp_path / 'input' / f'{stem}.{lq}', noise(20, 24, i))
        write_image(tmp_path / 'target' / f'{stem}.{gt}', noise(20, 24, 9 + i))
    write_pair_stores(Pairs(images_by_stem(tmp_path / 'input'), images_by_stem(tmp_path / 'target')), tmp_path)
    for phase, place in (('val', 0), ('train', 3)):
        folders = PairedRainDataset(options(tmp_path, phase))
        lmdbs = PairedRainDataset(options(tmp_path, phase, **stores(tmp_path)))
        mixed = PairedRainDataset(options(tmp_path, phase, dataroot_gt=str(tmp_path / 'target.lmdb')))
        for index, stem in enumerate(['a', 'b c']):
            item, stored = folders[2 * place + index], lmdbs[2 * place + index]
            assert torch.equal(item['lq'], stored['lq'])
            assert torch.equal(item['gt'], stored['gt'])
            assert torch.equal(item['gt'], mixed[2 * place + index]['gt'])
            assert (stored['lq_path'], stored['gt_path']) == (stem, stem)
            if phase == 'val' and lq != 'jpg':
                assert torch.equal(item['lq'], to_tensor(noise(20, 24, index)))
            if phase == 'val':
                assert torch.equal(item['gt'], to_tensor(noise(20, 24, 9 + index)))


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'tif'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_size_in_a_header_is_that_of_the_decoded_image(suffix, orientation, tmp_path):
    path = tmp_path / f'a.{suffix}'
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    turn = {'tiffinfo': {ORIENTATION: orientation}} if suffix == 'tif' else {'exif': exif.tobytes()}
    Image.fromarray(noise(20, 30)).save(path, **turn)
    with Image.open(path) as header:
        assert header_size(header) == read_image(path).shape[:2]
    assert read_image(path).shape[:2] == ((20, 30) if orientation < 5 else (30, 20))


@pytest.mark.parametrize('exif', [b'Exif\0\0garbage', b'Exif\0\0', b'Exif\0\0II', b'Exif\0\0II*\0\xff\xff\xff\xff'])
@pytest.mark.filterwarnings('ignore:Corrupt EXIF data')
def test_broken_exif_data_do_no_harm(exif, tmp_path):
    Image.fromarray(noise(20, 30)).save(tmp_path / 'a.jpg', exif=exif)
    with Image.open(tmp_path / 'a.jpg') as header:
        assert header_size(header) == read_image(tmp_path / 'a.jpg').shape[:2] == (20, 30)


@pytest.mark.parametrize('suffix', ['jpg', 'tif'])
def test_turned_photo_and_its_upright_partner_are_a_pair(suffix, tmp_path):
    write_image(tmp_path / 'target' / 'a.png', noise(30, 20))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    (tmp_path / 'input').mkdir()
    turn = {'tiffinfo': {ORIENTATION: 6}} if suffix == 'tif' else {'exif': exif.tobytes()}
    Image.fromarray(noise(20, 30)).save(tmp_path / 'input' / f'a.{suffix}', **turn)
    item = PairedRainDataset(options(tmp_path, 'val'))[0]
    assert item['lq'].shape == item['gt'].shape == (3, 30, 20)
    write_image(tmp_path / 'target' / 'a.png', noise(20, 30))
    with pytest.raises(InputError, match=r'a \(20 x 30 and 30 x 20\)'):
        PairedRainDataset(options(tmp_path, 'val'))


def test_sizes_are_checked_without_decoding(pairs, monkeypatch):
    """Thousands of images are looked at before the first step."""
    monkeypatch.setattr(ImageFile.ImageFile, 'load', lambda self: pytest.fail('decoded'))
    PairedRainDataset(options(pairs))


# Reproducibility


def epoch(pairs, workers, epoch=0, context=None, **more):
    dataset = PairedRainDataset(options(pairs, **{'seed': 7, **stores(pairs), **more}))
    sampler = KeyedSampler(len(dataset), seed=7)
    sampler.set_epoch(epoch)
    loader = DataLoader(dataset, 2, sampler=sampler, num_workers=workers, multiprocessing_context=context)
    return list(loader)


@pytest.mark.parametrize('workers', [1, 2])
def test_patches_do_not_depend_on_the_number_of_workers(workers, pairs):
    """The parent has the LMDBs open when the workers are forked."""
    expected = epoch(pairs, 0)
    assert len(expected) == 2
    assert all(same(a, b) for a, b in zip(expected, epoch(pairs, workers), strict=True))


@pytest.mark.slow
def test_workers_may_be_spawned(pairs):
    expected = epoch(pairs, 0)
    assert all(same(a, b) for a, b in zip(expected, epoch(pairs, 1, context='spawn'), strict=True))


def test_opened_set_can_be_pickled(pairs):
    dataset = PairedRainDataset(options(pairs, **stores(pairs)))
    item = dataset[9]
    assert same(pickle.loads(pickle.dumps(dataset))[9], item)


def test_one_lmdb_serves_training_and_validation_at_once(pairs):
    train, val = (PairedRainDataset(options(pairs, phase, **stores(pairs))) for phase in ('train', 'val'))
    assert val[0]['lq_path'] == train[0]['lq_path']
    assert val[0]['lq'].shape != train[4]['lq'].shape


def test_sides_that_are_one_are_refused(pairs, tmp_path):
    one = {'dataroot_lq': str(pairs / 'target.lmdb'), 'dataroot_gt': str(pairs / 'target.lmdb')}
    with pytest.raises(InputError, match=r'dataroot_lq and dataroot_gt are both .*target\.lmdb; name the clean images'):
        PairedRainDataset(options(pairs, **one))
    shutil.copytree(pairs / 'target', tmp_path / 'copy')
    copied = {'dataroot_lq': str(tmp_path / 'copy'), 'dataroot_gt': str(pairs / 'target')}
    with pytest.raises(InputError, match='input and target are one file in 4 of 4 pairs looked at'):
        PairedRainDataset(options(pairs, **copied))


def test_pairs_without_rain_are_named(pairs, tmp_path):
    shutil.copytree(pairs / 'input', tmp_path / 'input')
    rainless = sorted((pairs / 'target').iterdir())[3]
    shutil.copyfile(rainless, tmp_path / 'input' / f'{rainless.stem}.png')
    dataset = PairedRainDataset(options(pairs, dataroot_lq=str(tmp_path / 'input')))
    assert len(dataset.warnings) == 1
    assert f'one file in 1 of 4 pairs looked at: {rainless.stem}' in dataset.warnings[0]


def test_a_store_that_is_replaced_during_a_run_is_noticed(pairs, tmp_path):
    shutil.copytree(pairs / 'input.lmdb', tmp_path / 'input.lmdb')
    roots = {**stores(pairs), 'dataroot_lq': str(tmp_path / 'input.lmdb')}
    dataset = PairedRainDataset(options(pairs, **roots))
    dataset[0]
    shutil.copyfile(pairs / 'target.lmdb' / 'data.mdb', tmp_path / 'new')
    os.replace(tmp_path / 'new', tmp_path / 'input.lmdb' / 'data.mdb')
    with pytest.raises(InputError, match=r'input\.lmdb: the store was replaced during the run'):
        dataset[0]


def test_same_code_gives_the_same_patch_whatever_was_drawn_before(pairs):
    dataset = PairedRainDataset(options(pairs, seed=7))
    item = dataset[4 * 5 + 2]
    random.random(), torch.rand(1), dataset[0]
    assert same(dataset[4 * 5 + 2], item)
    assert same(PairedRainDataset(options(pairs, seed=7))[4 * 5 + 2], item)


def test_other_places_and_seeds_give_other_patches(pairs):
    patches = {
        PairedRainDataset(options(pairs, seed=seed))[4 * place]['lq'].numpy().tobytes()
        for seed in (7, 8)
        for place in range(1, 9)
    }
    assert len(patches) == 16


def test_epochs_give_other_patches(pairs):
    patches = [
        patch.numpy().tobytes() for e in range(3) for batch in epoch(pairs, 0, e) for patch in batch['lq']
    ]  # fmt: skip
    assert len(set(patches)) == 12


def test_plain_index_draws_from_pythons_generator(pairs):
    dataset = PairedRainDataset(options(pairs))
    random.seed(1)
    first = dataset[0], dataset[0]
    assert not torch.equal(first[0]['lq'], first[1]['lq'])
    random.seed(1)
    assert same(dataset[0], first[0])


# What a user can do wrong


@pytest.mark.parametrize('key', ['dataroot_lq', 'dataroot_gt'])
@pytest.mark.parametrize('value', [None, ''])
def test_missing_root_is_named_by_its_option(key, value, pairs):
    with pytest.raises(InputError) as error:
        PairedRainDataset(options(pairs, **{key: value}))
    assert str(error.value) == f'datasets.train.{key}: not given; write the folder or LMDB of the images'


@pytest.mark.parametrize(
    ('name', 'message'), [('absent', 'no folder {}'), ('absent.lmdb', 'no LMDB {}; make it with: ddsa data lmdb')]
)
def test_root_that_is_not_there_is_named_by_its_option(name, message, pairs, tmp_path):
    with pytest.raises(InputError) as error:
        PairedRainDataset(options(pairs, 'val', dataroot_lq=str(tmp_path / name)))
    assert str(error.value) == f'datasets.val.dataroot_lq: {message.format(tmp_path / name)}'


@pytest.mark.parametrize('size', [None, 0, -8, '128', 12.5])
def test_patch_size_that_is_none_is_named(size, pairs):
    with pytest.raises(InputError, match=rf'^datasets\.train\.gt_size: {size!r} is no patch size; the paper has 128'):
        PairedRainDataset(options(pairs, gt_size=size))


def test_image_without_partner_is_named(own_pairs):
    (own_pairs / 'target' / 'r-2.png').unlink()
    with pytest.raises(InputError) as error:
        PairedRainDataset(options(own_pairs))
    assert str(error.value).startswith(
        f'1 of {own_pairs / "input"} have no partner in {own_pairs / "target"}: r-2. Add the missing images'
    )


def test_unequal_sizes_are_named_before_training(own_pairs):
    write_image(own_pairs / 'target' / 'r-2.png', noise(41, 34))
    with pytest.raises(InputError) as error:
        PairedRainDataset(options(own_pairs))
    assert str(error.value) == (
        f'1 pairs of {own_pairs / "input"} and {own_pairs / "target"} have unequal sizes: r-2 (33 x 41 and 34 x 41); '
        'replace or remove these pairs'
    )


def test_unequal_sizes_of_two_stores_are_named(pairs, tmp_path):
    for stem in STEMS:
        write_image(tmp_path / 'a' / f'{stem}.png', noise(9, 9))
    (other, _), _ = write_pair_stores(Pairs(images_by_stem(tmp_path / 'a'), images_by_stem(tmp_path / 'a')), tmp_path)
    with pytest.raises(InputError, match=r'4 pairs of .* have unequal sizes: r-1 \(33 x 40 and 9 x 9\), r-2'):
        PairedRainDataset(options(pairs, **{**stores(pairs), 'dataroot_gt': str(other)}))


def test_image_replaced_by_one_of_another_size_is_named_at_access(own_pairs):
    dataset = PairedRainDataset(options(own_pairs))
    write_image(own_pairs / 'input' / 'r-1.png', noise(50, 50))
    with pytest.raises(InputError, match=r'^r-1: input and target have unequal sizes; replace or remove this pair'):
        dataset[4]


@pytest.mark.parametrize('data', [b'', b'<html>'])
def test_file_that_is_no_image_is_named_before_training(data, own_pairs):
    path = own_pairs / 'input' / 'r-3.png'
    path.write_bytes(data)
    with pytest.raises(InputError) as error:
        PairedRainDataset(options(own_pairs))
    assert str(error.value).startswith(f'{path}: not a readable image (')
    assert str(error.value).endswith('; replace it, or remove it with its partner')


def message_of_second_item(dataset, workers):
    loader = iter(DataLoader(dataset, 1, num_workers=workers))
    next(loader)
    try:
        next(loader)
    except InputError as error:
        traceback.clear_frames(error.__traceback__)  # a loader that ends as cyclic garbage waits 5 s for its workers
        return clear_message(error)
    return 'no error'


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('phase', ['train', 'val'])
def test_truncated_image_is_named_at_access_even_from_a_worker(workers, phase, own_pairs):
    path = own_pairs / 'input' / 'r-2.png'
    path.write_bytes(path.read_bytes()[:1500])
    dataset = PairedRainDataset(options(own_pairs, phase))  # its header is whole
    assert message_of_second_item(dataset, workers) == (
        f'{path}: truncated or not an image (1500 bytes); replace it, or remove it together with its partner'
    )


def test_images_kept_in_memory_give_the_same_items_and_are_decoded_once(pairs, monkeypatch):
    plain = PairedRainDataset(options(pairs, **stores(pairs)))
    cached = PairedRainDataset(options(pairs, cache_images=True, **stores(pairs)))
    codes = [place * len(STEMS) + place % len(STEMS) for place in range(1, 13)]
    assert all(same(plain[code], cached[code]) for code in codes)
    monkeypatch.setattr('ddsa_arch.files.lmdb_store.read_value', lambda *_: pytest.fail('read again'))
    assert all(cached[code]['lq'].shape == (3, 16, 16) for code in codes)
