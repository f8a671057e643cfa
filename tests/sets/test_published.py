"""Published sets in the layouts of their authors, made of small files."""

import numpy as np
import pytest

from ddsa_arch.errors import InputError
from ddsa_arch.files.images import encode_image
from ddsa_arch.files.lmdb_store import read_entries, read_value
from ddsa_arch.runners.data_lmdb import make_lmdb
from ddsa_arch.runners.data_verify import verify
from ddsa_arch.sets.prepare import prepare
from ddsa_arch.sets.published import PUBLISHED, names


def put(folder, *files):
    for i, name in enumerate(files):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (8, 16, 3), dtype=np.uint8)
        path.write_bytes(encode_image(pixels, path.suffix))
    return folder


LAYOUTS = {
    'RainDS_real_test_rainstreak': [
        'RainDS/RainDS_real/test_set/gt/2.png', 'RainDS/RainDS_real/test_set/rainstreak/2.png',
        'RainDS/RainDS_real/test_set/rainstreak/IMG_7435.png',
    ],
    'RainDS_syn_train_rainstreak_raindrop': [
        f'RainDS_syn/train/{name}.png' for name in (
            'gt/norain-1', 'gt/pie-norain-1', 'rainstreak_raindrop/rd-rain-1', 'rainstreak_raindrop/pie-rd-rain-1')
    ],
    'RealRain-1k-L_train': ['RealRain-1k-L/train/input/7.png', 'RealRain-1k-L/train/target/7.png'],
    'GT-RAIN_train': [f'GT-RAIN_train/A_0-0/A_0-0-Webcam-{k}.png' for k in ('C-000', 'R-000', 'R-001')],
    'Rain12600': [
        'rainy_image_dataset/training/rainy image/1_1.jpg', 'rainy_image_dataset/training/rainy image/1_2.jpg',
        'rainy_image_dataset/training/ground truth/1.jpg',
    ],
    'rain_data_test_Light': [
        f'rain_data_test_Light/{name}.png' for i in (1, 20) for name in (f'rain/X2/norain-{i}x2', f'norain/norain-{i}')
    ],
    'Rain100H': ['test/Rain100H/rainy/rain-001.png', 'test/Rain100H/norain-001.png', 'test/Rain100H/rain-001.png'],
    'RainTrainL': [f'RainTrainL/{kind}-{i}.png' for kind in ('rain', 'norain') for i in (1, 2)],
}  # fmt: skip


@pytest.mark.parametrize('name', LAYOUTS)
def test_published_layout_goes_in_as_it_is(name, tmp_path):
    root = put(tmp_path / 'download', *LAYOUTS[name])
    lines = []
    (made,) = prepare(root, tmp_path / 'out', any_count=True, report=lines.append)
    assert (made.row['set'], made.row['result'].split(';')[0]) == (name, 'made')
    assert verify([tmp_path / 'out' / name])[1] == []
    (again,) = prepare(root, tmp_path / 'out', [name], any_count=True)
    assert again.row['result'].startswith('verified, was there')


def test_spa_data_is_its_list(tmp_path):
    root = put(tmp_path / 'Training', 'real_world/000/000-1/000-1_0_0.png', 'real_world_gt/000/000_0_0.png')
    (root / 'real_world.txt').write_text('./real_world/000/000-1/000-1_0_0.png ./real_world_gt/000/000_0_0.png\n')
    (made,) = prepare(tmp_path, tmp_path / 'out')
    assert (made.row['set'], made.row['pairs']) == ('SPA-Data_train', 1)


def test_rain1200_is_cut_into_halves(tmp_path):
    folder = tmp_path / 'DID-MDN-training' / 'Rain_Heavy' / 'train2018new'
    folder.mkdir(parents=True)
    smooth = np.full((16, 16, 3), 90, np.uint8)
    rainy = smooth.copy()
    rainy[:, ::4] = 220
    for i in range(3):
        (folder / f'{i}.png').write_bytes(encode_image(np.concatenate([rainy, smooth], 1), '.png'))
    (made,) = prepare(tmp_path / 'DID-MDN-training', tmp_path / 'out', any_count=True)
    assert (made.row['set'], made.row['pairs']) == ('Rain1200_train_Heavy', 3)
    assert prepare(tmp_path / 'DID-MDN-training', tmp_path / 'out', any_count=True)[0].row['result'].startswith('verif')


def test_every_published_set_names_its_source():
    assert all(published.source for published in PUBLISHED)
    assert len(names()) == len(set(names())) >= 30


def test_one_clean_image_is_stored_once_and_its_bytes_stay(tmp_path):
    root = put(
        tmp_path / 's', *(f'input/{i}_{j}.jpg' for i in (1, 2) for j in range(1, 15)), 'target/1.jpg', 'target/2.jpg'
    )
    (rainy, clean), notes = make_lmdb(root / 'input', root / 'target', tmp_path / 'out')
    assert notes[0].startswith('matched by: many_to_one, ')
    assert (len(read_entries(rainy)), list(read_entries(clean))) == (28, ['1', '2'])
    assert read_value(clean, '2') == (root / 'target' / '2.jpg').read_bytes()
    assert verify([tmp_path / 'out'])[1] == []
    assert verify([tmp_path / 'out'], match='stem')[1][0].startswith('no image of ')


def test_broken_clean_image_is_named_once_and_its_rainy_ones_are_left_out(tmp_path):
    root = put(tmp_path / 's', 'input/1_1.png', 'input/1_2.png', 'input/2_1.png', 'target/1.png', 'target/2.png')
    (root / 'target' / '1.png').write_bytes(b'no image')
    with pytest.raises(InputError, match='2 problems'):
        make_lmdb(root / 'input', root / 'target', tmp_path / 'out', match='many_to_one')
    assert not (tmp_path / 'out').exists()
    (rainy, clean), _ = make_lmdb(root / 'input', root / 'target', tmp_path / 'out', skip_bad=True, match='many_to_one')
    assert (list(read_entries(rainy)), list(read_entries(clean))) == (['2_1'], ['2'])


def test_broken_first_rainy_image_does_not_cost_the_clean_one(tmp_path):
    root = put(tmp_path / 's', 'input/1_1.png', 'input/1_2.png', 'target/1.png')
    (root / 'input' / '1_1.png').write_bytes(b'no image')
    (rainy, clean), _ = make_lmdb(root / 'input', root / 'target', tmp_path / 'out', skip_bad=True)
    assert (list(read_entries(rainy)), list(read_entries(clean))) == (['1_2'], ['1'])


def shared_data(repository):
    folder = repository.parent / 'shared' / 'data'
    if not folder.is_dir():
        pytest.skip('the images are not there')
    return folder


@pytest.mark.slow
def test_rain800_makes_686_pairs_that_verify(repository, tmp_path):
    _, notes = make_lmdb(None, None, tmp_path, halves=shared_data(repository) / 'rain800_train')
    assert notes[0].startswith('matched by: left_clean, ')
    counts, problems = verify([tmp_path])
    assert ([count for _, count in counts], problems) == ([686, 686], [])


def test_raintrainl_is_paired_with_the_photos_of_rain200h(repository, tmp_path):
    data = shared_data(repository)
    make_lmdb(data / 'raintrainl_input', data / 'rain200h_train' / 'target', tmp_path)
    counts, problems = verify([tmp_path])
    assert ([count for _, count in counts], problems) == ([200, 200], [])
