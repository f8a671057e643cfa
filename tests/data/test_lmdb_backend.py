import pickle

import numpy as np
import pytest
from basicsr.data import build_dataset
from basicsr.utils.file_client import FileClient

from ddsa_arch.data.lmdb_backend import StoreBackend
from ddsa_arch.errors import InputError
from ddsa_arch.files.images import encode_image, images_by_stem
from ddsa_arch.files.matching import Pairs
from ddsa_arch.sets.pair_stores import write_pair_stores


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
    """The folder of two stores, and the images in them by side and stem."""
    folder = tmp_path_factory.mktemp('backend')
    arrays = {'input': {}, 'target': {}}
    for i, side in enumerate(arrays):
        (folder / side).mkdir()
        for j, stem in enumerate(['norain-1', 'norain-2', '雨 3']):
            image = np.random.default_rng(10 * i + j).integers(0, 256, (9, 7, 3), dtype=np.uint8)
            arrays[side][stem] = image
            (folder / side / f'{stem}.png').write_bytes(encode_image(image))
    write_pair_stores(Pairs(images_by_stem(folder / 'input'), images_by_stem(folder / 'target')), folder)
    return folder, arrays


def test_basicsrs_file_client_is_ours(pairs):
    folder, arrays = pairs
    client = FileClient('lmdb', db_paths=[folder / 'input.lmdb', folder / 'target.lmdb'], client_keys=['lq', 'gt'])
    assert isinstance(client.client, StoreBackend)
    for stem in arrays['input']:
        assert client.get(stem, 'lq') == (folder / 'input' / f'{stem}.png').read_bytes()
        assert client.get(stem, 'gt') == (folder / 'target' / f'{stem}.png').read_bytes()


def test_one_path_needs_no_key(pairs):
    folder, _ = pairs
    path = str(folder / 'input.lmdb')
    expected = (folder / 'input' / 'norain-1.png').read_bytes()
    assert FileClient('lmdb', db_paths=path).get('norain-1') == expected
    assert StoreBackend(folder / 'input.lmdb').get('norain-1') == expected
    assert StoreBackend([path], ['default'], readonly=True, lock=False).get('norain-1') == expected


def test_two_clients_of_one_store_work_and_can_be_pickled(pairs):
    folder, _ = pairs
    path = str(folder / 'input.lmdb')
    expected = (folder / 'input' / 'norain-1.png').read_bytes()
    both = StoreBackend([path, path], ['lq', 'gt'])
    assert both.get('norain-1', 'lq') == both.get('norain-1', 'gt') == expected
    assert pickle.loads(pickle.dumps(both)).get('norain-1', 'gt') == expected


def test_paths_and_keys_of_unequal_number_are_refused(pairs):
    folder, _ = pairs
    with pytest.raises(ValueError, match='1 db_paths and 2 client_keys: give one key for each path'):
        StoreBackend(str(folder / 'input.lmdb'), ['lq', 'gt'])


def test_missing_key_and_store_are_named(pairs, tmp_path):
    folder, _ = pairs
    with pytest.raises(InputError, match=r"input\.lmdb: no image 'norain-9'"):
        StoreBackend(folder / 'input.lmdb').get('norain-9')
    with pytest.raises(InputError, match=r'absent\.lmdb: no readable LMDB'):
        StoreBackend(tmp_path / 'absent.lmdb').get('norain-1')


def test_stock_dataset_reads_our_stores(pairs):
    folder, arrays = pairs
    options = {'name': 'stock', 'type': 'PairedImageDataset', 'phase': 'val', 'scale': 1}
    options |= {'dataroot_lq': str(folder / 'input.lmdb'), 'dataroot_gt': str(folder / 'target.lmdb')}
    dataset = build_dataset({**options, 'io_backend': {'type': 'lmdb'}})
    assert len(dataset) == 3
    for item in (dataset[i] for i in range(3)):
        for name, side in (('lq', 'input'), ('gt', 'target')):
            expected = arrays[side][item[f'{name}_path']][..., ::-1].transpose(2, 0, 1) / 255
            assert np.abs(item[name].numpy() - expected).max() < 1e-6
