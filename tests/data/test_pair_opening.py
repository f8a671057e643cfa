"""PairedRainDataset on the layouts of published sets."""

import numpy as np
import pytest
import torch

from ddsa_arch.data.image_source import to_tensor
from ddsa_arch.data.pair_opening import open_set
from ddsa_arch.data.paired_rain_dataset import PairedRainDataset
from ddsa_arch.errors import InputError
from ddsa_arch.files.images import encode_image
from ddsa_arch.runners.data_lmdb import make_lmdb


def pixels(seed, width=20):
    return np.random.default_rng(seed).integers(0, 256, (18, width, 3), dtype=np.uint8)


def put(folder, **images):
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        (folder / f'{name}.png').write_bytes(encode_image(image, '.png'))
    return folder


def dataset(lq, gt=None, phase='val', **more):
    return PairedRainDataset(
        {'phase': phase, 'gt_size': 8, 'dataroot_lq': str(lq), 'dataroot_gt': str(gt or lq), **more}
    )


@pytest.fixture
def variants(tmp_path):
    """Two photos with three rains each, as Rain1400 has them."""
    rainy = {f'{i}_{j}': pixels(10 * i + j) for i in (1, 2) for j in (1, 2, 3)}
    put(tmp_path / 'rainy', **rainy), put(tmp_path / 'clean', **{str(i): pixels(i) for i in (1, 2)})
    make_lmdb(tmp_path / 'rainy', tmp_path / 'clean', tmp_path / 'stores')
    return tmp_path


@pytest.mark.parametrize('places', [('rainy', 'clean'), ('stores/input.lmdb', 'stores/target.lmdb')])
def test_many_rainy_images_share_a_clean_one(places, variants):
    found = dataset(*(variants / place for place in places))
    assert len(found) == 6
    assert found.warnings[-1].endswith(
        'matched by: many_to_one, many rainy images of one clean one, NAME_1, NAME_2 ... of NAME'
    )
    for index, (i, j) in enumerate((i, j) for i in (1, 2) for j in (1, 2, 3)):
        assert torch.equal(found[index]['lq'], to_tensor(pixels(10 * i + j)))
        assert torch.equal(found[index]['gt'], to_tensor(pixels(i)))
    assert dataset(*(variants / place for place in places), phase='train')[6 + 2]['gt'].shape == (3, 8, 8)


def test_excluded_images_take_their_clean_one_along(variants):
    (variants / 'list.txt').write_text('1_1\n1_2\n1_3\n')
    found = dataset(variants / 'rainy', variants / 'clean', exclude_keys=str(variants / 'list.txt'))
    assert found.stems == ['2_1', '2_2', '2_3']
    (variants / 'list.txt').write_text('1_1\n')
    assert len(dataset(variants / 'rainy', variants / 'clean', exclude_keys=str(variants / 'list.txt'))) == 5


def test_rule_that_is_given_is_not_left(variants):
    with pytest.raises(InputError, match='stem gives no pair'):
        dataset(variants / 'rainy', variants / 'clean', match='stem')


@pytest.mark.parametrize('match', ['left_clean', 'right_clean'])
def test_halves_of_files(match, tmp_path):
    folder = put(tmp_path / 'h', a=pixels(0, 40), b=pixels(1, 40))
    item = dataset(folder, match=match)[1]
    left, right = to_tensor(pixels(1, 40)[:, :20]), to_tensor(pixels(1, 40)[:, 20:])
    assert torch.equal(item['gt'], left if match == 'left_clean' else right)
    assert torch.equal(item['lq'], right if match == 'left_clean' else left)
    put(folder, c=pixels(2, 41))
    with pytest.raises(InputError, match=r'c\.png: 41 x 18 pixels cannot be cut'):
        dataset(folder, match=match)


def test_one_folder_patterns_and_lists_give_the_same_pairs(tmp_path):
    folder = put(
        tmp_path / 's', **{'rain-1': pixels(1), 'rain-2': pixels(2), 'norain-1': pixels(3), 'norain-2': pixels(4)}
    )
    (tmp_path / 'l.txt').write_text('rain-1.png norain-1.png\nrain-2.png norain-2.png\n')
    ways = [
        dataset(folder),
        dataset(f'{folder}/rain-*.png', f'{folder}/norain-*.png'),
        dataset(folder, pairs_file=str(tmp_path / 'l.txt')),
    ]
    for found in ways:
        assert [torch.equal(found[i]['gt'], to_tensor(pixels(3 + i))) for i in (0, 1)] == [True, True]
        assert [torch.equal(found[i]['lq'], to_tensor(pixels(1 + i))) for i in (0, 1)] == [True, True]


def test_nested_images_have_paths_by_which_results_can_be_named(tmp_path):
    for side, seed in (('input', 1), ('target', 5)):
        for i, scene in enumerate(('a', 'b')):
            put(tmp_path / side / scene, **{'1': pixels(seed + i)})
    found = dataset(tmp_path / 'input', tmp_path / 'target')
    assert [found[i]['lq_path'] for i in (0, 1)] == ['a__1', 'b__1']
    assert torch.equal(found[1]['gt'], to_tensor(pixels(6)))


def test_set_is_opened_by_its_folder_or_list(variants):
    assert open_set(variants / 'stores', 'SET').loose_partner()['2_1'] == '2'
    (variants / 'pairs.txt').write_text('rainy/1_1.png clean/1.png\n')
    assert list(open_set(variants / 'pairs.txt', 'SET').inputs.found) == ['1_1']
