import lmdb
import numpy as np
import pytest

from ddsa_arch.files.images import encode_image, images_by_stem, write_image
from ddsa_arch.files.lmdb_store import META_NAME
from ddsa_arch.files.matching import Pairs
from ddsa_arch.runners.cli import main
from ddsa_arch.sets.pair_stores import write_pair_stores
from ddsa_arch.sets.verify import pair_problems, store_problems


@pytest.fixture
def stores(tmp_path, rng):
    for side in ('input', 'target'):
        for stem in ('a', 'b', 'c'):
            write_image(tmp_path / side / f'{stem}.png', rng.integers(0, 256, (8, 12, 3), dtype=np.uint8))
    pairs = Pairs(images_by_stem(tmp_path / 'input'), images_by_stem(tmp_path / 'target'))
    return write_pair_stores(pairs, tmp_path / 'set')[0]


def change(store, key, value):
    """Write into the database with lmdb itself; None deletes."""
    with lmdb.open(str(store), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        _ = transaction.delete(key) if value is None else transaction.put(key, value)


def edit_meta(store, old, new):
    meta = store / META_NAME
    text = meta.read_text(encoding='utf-8')
    assert old in text
    meta.write_text(text.replace(old, new), encoding='utf-8')


def test_sound_stores_have_no_problems(stores, capsys):
    assert store_problems(stores[0]) == store_problems(stores[1]) == pair_problems(*stores) == []
    assert main(['data', 'verify', str(stores[0].parent)]) == 0
    assert capsys.readouterr().out.count('| 3 ') == 2


def test_each_damage_is_named_and_the_exit_code_is_1(stores, capsys):
    whole = encode_image(np.zeros((8, 12, 3), np.uint8))
    change(stores[0], b'a', whole[:-20])
    change(stores[0], b'b', None)
    change(stores[0], b'd', whole)
    edit_meta(stores[1], 'c.png (8,12,3)', 'c.png (8,13,3)')
    assert main(['data', 'verify', str(stores[0].parent)]) == 1
    lines = capsys.readouterr().out.splitlines()
    for words in (
        ['input.lmdb, a: truncated'],
        ["'b' is in meta_info.txt but not in data.mdb"],
        ["'d' is in data.mdb but not in meta_info.txt"],
        ['target.lmdb, c: the image is 12 x 8, meta_info.txt says 13 x 8'],
        ["'c': input and target have unequal sizes, 12 x 8 and 13 x 8"],
    ):
        assert sum(words[0] in line for line in lines) == 1
    assert len(lines) == 5


def test_keys_without_partner_are_named(stores):
    edit_meta(stores[1], 'a.png', 'z.png')
    input_name, target_name = stores
    assert pair_problems(*stores) == [
        f"'a' is in {input_name} but not in {target_name}", f"'z' is in {target_name} but not in {input_name}"
    ]  # fmt: skip


def test_a_half_made_store_and_a_path_of_something_else_are_named(stores, tmp_path, capsys):
    (stores[0] / META_NAME).write_text('', encoding='utf-8')
    assert main(['data', 'verify', str(stores[0])]) == 1
    assert 'was left half-made' in capsys.readouterr().out
    assert main(['data', 'verify', str(tmp_path / 'nowhere')]) == 2
    assert 'nowhere: no X.lmdb, no folder with input.lmdb' in capsys.readouterr().err
    assert main(['data', 'verify']) == 2
    assert 'nothing to check' in capsys.readouterr().err


@pytest.fixture
def folders(tmp_path, rng):
    for side in ('rain', 'norain'):
        for number in range(1, 4):
            pixels = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)
            write_image(tmp_path / 'set' / side / f'{side}-{number}.png', pixels)
    return tmp_path / 'set'


def test_sound_files_have_no_problems_however_they_are_named(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'list.txt').write_text('rain/rain-1.png norain/norain-1.png\n', encoding='utf-8')
    for words, pairs in (
        (['set'], 3),
        (['--input', 'set/rain', '--target', 'set/norain'], 3),
        (['--input', 'set/rain/rain-*.png', '--target', 'set/norain/norain-*.png'], 3),
        (['--pairs-file', 'list.txt', '--root', 'set'], 1),
    ):
        assert main(['data', 'verify', *words]) == 0
        assert f'| {pairs} ' in capsys.readouterr().out


def test_each_damage_of_files_is_named(folders, capsys):
    rainy, clean = folders / 'rain', folders / 'norain'
    whole = (rainy / 'rain-1.png').read_bytes()
    (clean / 'norain-1.png').write_bytes(whole)
    (rainy / 'rain-2.png').write_bytes(whole[:-20])
    write_image(clean / 'norain-3.png', np.zeros((8, 13, 3), np.uint8))
    write_image(rainy / 'rain-4.png', np.zeros((8, 13, 3), np.uint8))
    assert main(['data', 'verify', '--input', str(rainy), '--target', str(clean), '--match', 'common']) == 1
    lines = capsys.readouterr().out.splitlines()
    for words in (
        'rain-4',
        'rain-2.png: truncated',
        'unequal sizes, 12 x 8 and 13 x 8',
        'input and target are one file in 1 pairs',
    ):
        assert sum(words in line for line in lines) == 1, (words, lines)
    assert len(lines) == 4
