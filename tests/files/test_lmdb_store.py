import os
import shutil
import subprocess
import sys

import cv2
import lmdb
import numpy as np
import pytest
from basicsr.data.data_util import paired_paths_from_lmdb
from basicsr.utils import imfrombytes
from basicsr.utils.file_client import LmdbBackend
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from helpers import content, in_child, names, needs_fork, noise, write_noise, write_stores
from PIL import Image

from ddsa_arch.errors import InputError
from ddsa_arch.files import lmdb_store
from ddsa_arch.files.images import decode_image, encode_image, read_image
from ddsa_arch.files.lmdb_store import Entry, is_store, read_entries, read_value

# Round trip


@pytest.mark.core
def test_store_holds_the_bytes_of_the_files(sides, tmp_path):
    stores = write_stores(*sides, tmp_path / 'out')
    assert stores == (tmp_path / 'out' / 'input.lmdb', tmp_path / 'out' / 'target.lmdb')
    for side, store in zip(sides, stores, strict=True):
        files = {stem: path.read_bytes() for stem, path in side.items()}
        assert content(store) == {stem.encode(): data for stem, data in files.items()}
        assert {stem: read_value(store, stem) for stem in side} == files
    assert names(tmp_path / 'out') == ['input.lmdb', 'target.lmdb']


def test_meta_info_is_basicsrs(sides, tmp_path):
    store, other = write_stores(*sides, tmp_path / 'out')
    assert (store / 'meta_info.txt').read_text(encoding='utf-8').splitlines() == [
        'norain-2.png (12,10,3) 1', 'norain-10.jpg (12,10,3) 1', 'two words.bmp (12,10,3) 1',
        '雨 im Süden.webp (12,10,3) 1',
    ]  # fmt: skip
    assert list(read_entries(store)) == list(read_entries(other)) == [
        'norain-2', 'norain-10', 'two words', '雨 im Süden',
    ]  # fmt: skip
    assert read_entries(store)['two words'] == Entry('two words', 'two words.bmp', (12, 10, 3))


def test_shape_is_that_of_the_turned_photo(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn
    Image.fromarray(noise()).save(tmp_path / 'a.jpg', exif=exif.tobytes())
    upright = write_noise(tmp_path / 'b' / 'a.png', height=10, width=12)
    store, _ = write_stores({'a': tmp_path / 'a.jpg'}, {'a': upright}, tmp_path / 'out')
    assert read_entries(store)['a'].shape == (10, 12, 3)


def test_hundreds_of_long_names_and_page_sized_images_fit(tmp_path, monkeypatch):
    """A value a little larger than what is left of a page takes another page; here each takes two."""
    monkeypatch.setattr(lmdb_store, 'MAP_SPARE', 0)
    image = encode_image(noise(), '.bmp')
    image += b'\0' * (lmdb_store.PAGE - 6 - len(image))
    side = {}
    for i in range(300):
        path = tmp_path / f'{i:03}{"n" * 230}.bmp'
        path.write_bytes(image)
        side[path.stem] = path
    store, _ = write_stores(side, side, tmp_path / 'out')
    assert len(read_entries(store)) == 300


# BasicSR reads ours, and we BasicSR's


def test_stock_basicsr_reads_our_stores(tmp_path):
    sides = []
    for side in ('rain', 'clean'):
        sides.append({n: write_noise(tmp_path / side / f'{n}.jpg', i) for i, n in enumerate(['norain-1', 'two words'])})
    stores = [str(store) for store in write_stores(*sides, tmp_path / 'out')]
    paths = paired_paths_from_lmdb(stores, ['lq', 'gt'])
    assert paths == [{'lq_path': n, 'gt_path': n} for n in ('norain-1', 'two words')]
    client = LmdbBackend(stores, ['lq', 'gt'])  # BasicSR's own class
    for key, side in zip(('lq', 'gt'), sides, strict=True):
        for stem, path in side.items():
            assert np.array_equal(imfrombytes(client.get(stem, key)), cv2.imread(str(path)))
    for environment in client._client.values():
        environment.close()


def test_we_read_the_stores_of_basicsr(tmp_path, capsys):
    for i, name in enumerate(['a.png', 'b.jpg']):
        write_noise(tmp_path / 'rain' / name, i)
    grey = noise(seed=5)[..., 0]
    cv2.imwrite(str(tmp_path / 'rain' / 'grey.png'), grey)
    keys = ['a', 'b', 'sub/grey', 'norain.1']
    store = tmp_path / 'rain.lmdb'
    make_lmdb_from_imgs(
        str(tmp_path / 'rain'), str(store), ['a.png', 'b.jpg', 'grey.png', 'a.png'], keys, map_size=1 << 20
    )
    entries = read_entries(store)
    assert list(entries) == keys
    assert entries['a'].shape == (12, 10, 3)
    assert entries['sub/grey'].shape == (12, 10, 1)
    assert np.array_equal(decode_image(read_value(store, 'a'), 'a'), noise())
    assert np.array_equal(decode_image(read_value(store, 'norain.1'), ''), noise())
    assert np.array_equal(decode_image(read_value(store, 'b'), 'b'), cv2.imread(str(tmp_path / 'rain' / 'b.jpg')))
    assert np.array_equal(decode_image(read_value(store, 'sub/grey'), ''), np.repeat(grey[..., None], 3, -1))


# Reading


@pytest.mark.parametrize(
    ('path', 'expected'),
    [('a.lmdb', True), ('x/a.lmdb/', True), ('a.lmdb.part', False), ('a', False), ('a.lmdb/b', False)],
)
def test_store_is_told_by_its_suffix(path, expected, tmp_path):
    assert is_store(path) is expected
    assert is_store(tmp_path / path) is expected


def test_missing_store_is_named_with_the_command_that_makes_it(tmp_path):
    path = tmp_path / 'a.lmdb'
    with pytest.raises(InputError) as error:
        read_entries(path, 'datasets.train.dataroot_lq')
    assert str(error.value) == f'datasets.train.dataroot_lq: no LMDB {path}; make it with: ddsa data lmdb'
    with pytest.raises(InputError, match=r'a\.lmdb: no readable LMDB \(No such file.*make it with: ddsa data lmdb'):
        read_value(path, 'a')
    assert names(tmp_path) == []  # lmdb makes folders in some modes


@pytest.mark.parametrize(
    ('meta', 'complaint'),
    [
        (None, 'cannot be read (No such file or directory); make the store again'),
        (b'', 'is empty, so the store was left half-made; delete'),
        (b'\xff\xfe1', 'cannot be read (not UTF-8); make the store again'),
        (b'a.png 12 10 3\n', 'has a line \'a.png 12 10 3\', wanted "NAME.png (H,W,C) 1"; make the store again'),
    ],
)
def test_unusable_meta_info_is_named(meta, complaint, tmp_path):
    store = tmp_path / 'a.lmdb'
    store.mkdir()
    if meta is not None:
        (store / 'meta_info.txt').write_bytes(meta)
    with pytest.raises(InputError) as error:
        read_entries(store, 'LQ')
    assert str(error.value).startswith(f'LQ: {store / "meta_info.txt"} {complaint}')


@pytest.mark.parametrize(
    ('line', 'key', 'name', 'shape'),
    [
        ('a.png (12,10,3) 1', 'a', 'a.png', (12, 10, 3)),
        ('two words.JPG (1,2,1) -1', 'two words', 'two words.JPG', (1, 2, 1)),
        ('a.b.png (12,10,3) 1', 'a.b', 'a.b.png', (12, 10, 3)),
        ('a (1,2,3).png (12,10,3) 1', 'a (1,2,3)', 'a (1,2,3).png', (12, 10, 3)),
        ('a.png (12,10,3)', 'a', 'a.png', (12, 10, 3)),
        ('no_suffix (12,10,3) 1', 'no_suffix', 'no_suffix', (12, 10, 3)),
    ],
)
def test_line_of_meta_info_is_understood(line, key, name, shape, tmp_path):
    (tmp_path / 'meta_info.txt').write_text(f'{line}\n\n', encoding='utf-8')
    assert read_entries(tmp_path) == {key: Entry(key, name, shape)}


def test_key_that_is_not_there_is_named(sides, tmp_path):
    store, _ = write_stores(*sides, tmp_path / 'out')
    with pytest.raises(InputError) as error:
        read_value(store, 'norain-3')
    assert str(error.value) == (
        f"{store}: no image 'norain-3'; meta_info.txt and data.mdb differ, make the store again"
    )


def test_damaged_database_is_named(tmp_path):
    (tmp_path / 'a.lmdb').mkdir()
    (tmp_path / 'a.lmdb' / 'data.mdb').write_bytes(b'junk' * 5000)
    with pytest.raises(InputError, match=r'a\.lmdb: no readable LMDB \(.*INVALID'):
        read_value(tmp_path / 'a.lmdb', 'a')


def test_store_is_read_under_several_names_in_one_process(sides, tmp_path, monkeypatch):
    """lmdb itself refuses to open a database twice."""
    store, _ = write_stores(*sides, tmp_path / 'out')
    (tmp_path / 'link.lmdb').symlink_to(store)
    monkeypatch.chdir(tmp_path)
    expected = sides[0]['norain-2'].read_bytes()
    for path in (store, str(store), f'{store}/', 'out/input.lmdb', tmp_path / 'link.lmdb'):
        assert read_value(path, 'norain-2') == expected


def test_store_that_was_made_again_is_read_anew(many, tmp_path):
    out = tmp_path / 'out'
    store, _ = write_stores(*many, out)
    assert read_value(store, '3') == many[0]['3'].read_bytes()
    shutil.rmtree(out)
    with pytest.raises(InputError, match='no readable LMDB'):
        read_value(store, '3')
    write_noise(many[0]['3'], 99, height=3, width=2)
    write_stores(*many, out)
    assert read_value(store, '3') == many[0]['3'].read_bytes()
    assert np.array_equal(decode_image(read_value(store, '3'), ''), noise(3, 2, 99))
    assert np.array_equal(read_image(many[0]['3']), noise(3, 2, 99))


@needs_fork
def test_store_is_read_in_a_forked_child_and_its_parent(sides, tmp_path):
    store, _ = write_stores(*sides, tmp_path / 'out')
    expected = sides[0]['norain-10'].read_bytes()
    assert read_value(store, 'norain-10') == expected  # now the parent has it open

    def read():
        assert lmdb_store._open_environments == {}
        assert all(read_value(store, 'norain-10') == expected for _ in range(3))

    assert in_child(read) == 0
    assert read_value(store, 'norain-10') == expected
    assert in_child(read) == 0


@pytest.mark.parametrize('left', [0.5, 0.8, 0.99])
def test_a_database_that_is_cut_off_is_not_read(sides, tmp_path, left):
    """Reading it would end the process with SIGBUS."""
    store, _ = write_stores(*sides, tmp_path / 'out')
    data = store / 'data.mdb'
    with data.open('r+b') as file:
        file.truncate(int(data.stat().st_size * left))
    with pytest.raises(InputError, match=r'no readable LMDB \(data\.mdb is cut off: it has .* bytes of'):
        read_value(store, 'norain-2')


def test_a_sound_database_whose_last_page_is_free_is_read(sides, tmp_path):
    """LMDB does not write such a page, so the file is shorter than it says."""
    store, _ = write_stores(*sides, tmp_path / 'out')
    with lmdb.open(str(store), map_size=1 << 26) as environment:
        for key in (b'other', b'large'):
            with environment.begin(write=True) as transaction:
                transaction.put(key, b'x' * 100_000)
        with environment.begin(write=True) as transaction:
            transaction.delete(b'large')
        needed = (environment.info()['last_pgno'] + 1) * environment.stat()['psize']
    os.truncate(store / 'data.mdb', needed - 2 * 4096)
    assert read_value(store, 'norain-2') == sides[0]['norain-2'].read_bytes()


def test_damaged_pages_are_one_message(sides, tmp_path):
    store, _ = write_stores(*sides, tmp_path / 'out')
    size = (store / 'data.mdb').stat().st_size
    with (store / 'data.mdb').open('r+b') as file:
        file.seek(8192)  # behind the two pages that describe the database
        file.write(os.urandom(size - 8192))
    code = f"from ddsa_arch.files.lmdb_store import read_value; read_value({str(store)!r}, 'norain-2')"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)  # it may end the process
    assert done.returncode == 1, done.returncode
    assert 'InputError' in done.stderr
