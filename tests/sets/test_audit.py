import argparse
import csv
import shutil

import cv2
import numpy as np
import pytest

from ddsa_arch.errors import InputError
from ddsa_arch.files.images import encode_image, write_image
from ddsa_arch.files.key_lists import read_keys
from ddsa_arch.files.lmdb_store import read_value
from ddsa_arch.ops.rain import LIGHT, add_rain
from ddsa_arch.runners.data_audit import add_arguments, run
from ddsa_arch.runners.data_lmdb import make_lmdb
from ddsa_arch.sets import audit as audit_module
from ddsa_arch.sets.audit import audit
from ddsa_arch.sets.sample_photos import sample_photos, split_tiles

TILE = 160


@pytest.fixture(scope='session')
def originals(tmp_path_factory):
    """Sets ``train`` of 12 pairs, photo0 ... photo11, and ``test`` of 4 pairs of other photos."""
    folder = tmp_path_factory.mktemp('audit')
    train = list(split_tiles(sample_photos(['astronaut'])['astronaut'], TILE).values())[:12]
    tests = list(split_tiles(sample_photos(['coffee'])['coffee'], TILE).values())[4:8]
    for name, tiles in (('train', train), ('test', tests)):
        for i, tile in enumerate(tiles):
            write_image(folder / name / 'target' / f'photo{i}.png', tile)
            rainy = add_rain(tile, LIGHT, np.random.default_rng(i))
            write_image(folder / name / 'input' / f'photo{i}.png', rainy)
    return folder


@pytest.fixture
def sets(originals, tmp_path):
    """A copy of them that a test may change."""
    for path in originals.rglob('*.png'):
        copy = tmp_path / path.relative_to(originals)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return tmp_path


def image(folder, name, side, i):
    return cv2.imread(str(folder / name / side / f'photo{i}.png'))


def plant(folder, key, change, source='test', i=0):
    """A pair of another set, changed, as a pair of the training set."""
    for side in ('input', 'target'):
        data = encode_image(np.ascontiguousarray(change(image(folder, source, side, i))), '.jpg')
        (folder / 'train' / side / f'{key}.jpg').write_bytes(data)


def found(summary, *kinds):
    return [(f.kind, f.set, f.key, f.other_set, f.other_key) for f in summary.findings if f.kind in kinds]


def test_sound_sets_have_no_findings(sets):
    summary = audit([sets / 'train'], [sets / 'test'], sets / 'out')
    assert summary.findings == []
    assert summary.rows == [('train', 'train', 12, *[0] * 8), ('test', 'test', 4, *[0] * 8)]
    assert (sets / 'out' / 'exclude_keys.txt').read_text(encoding='utf-8') == ''
    assert sorted(p.name for p in (sets / 'out').iterdir()) == ['audit.csv', 'exclude_keys.txt', 'report.html']


def test_planted_test_images_are_found_and_excluded(sets):
    plant(sets, 'mirrored-10', lambda x: x[:, ::-1], i=1)
    plant(sets, 'mirrored-9', lambda x: x[:, ::-1], i=1)
    plant(sets, 'cut', lambda x: np.clip(x[8:, 8:] * 1.2, 0, 255).astype(np.uint8), i=3)
    summary = audit([sets / 'train'], [sets / 'test'], sets / 'out')
    assert found(summary, 'leak') == [
        ('leak', 'train', 'cut', 'test', 'photo3'),
        ('leak', 'train', 'mirrored-9', 'test', 'photo1'),
        ('leak', 'train', 'mirrored-10', 'test', 'photo1'),
    ]
    assert [f.orientation for f in summary.findings[:3]] == ['as is', *['mirrored left to right'] * 2]
    assert found(summary, 'duplicate') == [('duplicate', 'train', 'mirrored-10', 'train', 'mirrored-9')]
    assert (sets / 'out' / 'exclude_keys.txt').read_text(encoding='utf-8').splitlines() == [
        '# near duplicates of test', 'cut', 'mirrored-9', 'mirrored-10',
    ]  # fmt: skip
    assert summary.excluded == {sets / 'out' / 'exclude_keys.txt': 3}
    assert [row[:5] for row in summary.rows] == [('train', 'train', 15, 3, 1), ('test', 'test', 4, 3, 0)]
    assert summary.page.read_text(encoding='utf-8').count('data:image/jpeg') == 6  # two leaks, one duplicate


def test_same_file_is_told_from_near_duplicates(sets):
    for key in ('one', 'two'):
        (sets / 'train' / 'target' / f'{key}.png').write_bytes((sets / 'test' / 'target' / 'photo2.png').read_bytes())
        (sets / 'train' / 'input' / f'{key}.png').write_bytes((sets / 'test' / 'input' / 'photo2.png').read_bytes())
    summary = audit([sets / 'train'], [sets / 'test'], sets / 'out')
    assert found(summary, 'leak', 'duplicate') == [
        ('leak', 'train', 'one', 'test', 'photo2'),
        ('leak', 'train', 'two', 'test', 'photo2'),
        ('duplicate', 'train', 'two', 'train', 'one'),
    ]
    assert {(f.similarity, f.detail) for f in summary.findings} == {(1.0, 'identical bytes')}


def damage(folder):
    """One pair of each fault: photo0 and photo1 broken, photo2 without input, photo3 cut, photo4 equal, photo5 dark."""
    inputs, targets = folder / 'input', folder / 'target'
    (inputs / 'photo0.png').write_bytes((inputs / 'photo0.png').read_bytes()[:-30])
    (targets / 'photo1.png').write_bytes(b'')
    (inputs / 'photo2.png').unlink()
    cv2.imwrite(str(inputs / 'photo3.png'), cv2.imread(str(inputs / 'photo3.png'))[:-1])
    (inputs / 'photo4.png').write_bytes((targets / 'photo4.png').read_bytes())
    cv2.imwrite(str(inputs / 'photo5.png'), cv2.imread(str(targets / 'photo5.png')) // 2)


FAULTS = [
    ('unequal sizes', 'photo3'), ('identical', 'photo4'), ('darker', 'photo5'), ('no partner', 'photo2'),
    ('broken', 'photo0'), ('broken', 'photo1'),
]  # fmt: skip


def test_every_fault_is_listed_and_none_stops_the_audit(sets):
    damage(sets / 'train')
    summary = audit([sets / 'train'], [sets / 'test'], sets / 'out')
    assert [(f.kind, f.key) for f in summary.findings] == FAULTS
    assert summary.rows[0] == ('train', 'train', 12, 0, 0, 1, 1, 1, 1, 2, 0)
    details = {f.key: f.detail for f in summary.findings}
    assert 'truncated' in details['photo0']
    assert 'empty (0 bytes)' in details['photo1']
    assert details['photo2'] == f'in {sets / "train" / "target"}, not in {sets / "train" / "input"}'
    assert (sets / 'out' / 'exclude_keys.txt').read_text(encoding='utf-8').splitlines() == ['# unequal sizes', 'photo3']
    with open(summary.table, encoding='utf-8', newline='') as file:
        assert [(row['kind'], row['key']) for row in csv.DictReader(file)] == FAULTS


def test_stores_are_audited_as_folders_are(sets):
    plant(sets, 'leaked', lambda x: x[::-1])
    for name in ('train', 'test'):
        make_lmdb(sets / name / 'input', sets / name / 'target', sets / 'stores' / name)
    from_folders = audit([sets / 'train'], [sets / 'test'], sets / 'out')
    from_stores = audit([sets / 'stores' / 'train'], [sets / 'stores' / 'test'], sets / 'out2')
    assert len(from_folders.findings) == 1
    assert from_stores.findings == from_folders.findings
    assert from_stores.page.read_text(encoding='utf-8') == from_folders.page.read_text(encoding='utf-8')


def test_key_that_a_store_lacks_is_broken(sets):
    make_lmdb(sets / 'train' / 'input', sets / 'train' / 'target', sets / 'train')
    meta = sets / 'train' / 'input.lmdb' / 'meta_info.txt'
    meta.write_text(meta.read_text(encoding='utf-8') + 'more.png (8,8,3) 1\n', encoding='utf-8')
    assert read_value(sets / 'train' / 'input.lmdb', 'photo0')
    summary = audit([sets / 'train'], [], sets / 'out')
    assert [(f.kind, f.key) for f in summary.findings] == [('no partner', 'more'), ('broken', 'more')]


def test_swapped_sides_are_asked_about(sets, capsys):
    (sets / 'train' / 'input').rename(sets / 'train' / 'x')
    (sets / 'train' / 'target').rename(sets / 'train' / 'input')
    (sets / 'train' / 'x').rename(sets / 'train' / 'target')
    code, lines = command(capsys, '--train', sets / 'train', '--out', sets / 'out')
    assert code == 0
    question = '12 of 12 pairs get darker: are input and target swapped?'
    assert f'train: {question}' in lines
    assert question in (sets / 'out' / 'report.html').read_text(encoding='utf-8')


def test_pairs_of_unequal_sizes_do_not_count_for_the_question(sets):
    for i in range(4, 12):
        for side in ('input', 'target'):
            (sets / 'train' / side / f'photo{i}.png').unlink()
    for i in (0, 1):
        cv2.imwrite(str(sets / 'train' / 'input' / f'photo{i}.png'), image(sets, 'train', 'target', i) // 2)
    cv2.imwrite(str(sets / 'train' / 'input' / 'photo2.png'), image(sets, 'train', 'input', 2)[1:])
    findings = audit([sets / 'train'], [], sets / 'out').findings
    assert [f.detail for f in findings if not f.key] == ['2 of 3 pairs get darker: are input and target swapped?']


def test_flat_targets_are_compared_by_their_bytes_alone(sets):
    for i, level in enumerate((90, 90, 91)):
        for side, add in (('input', 20), ('target', 0)):
            cv2.imwrite(str(sets / 'train' / side / f'plain{i}.png'), np.full((50, 60, 3), level + add, np.uint8))
    summary = audit([sets / 'train'], [], sets / 'out')
    assert [(f.kind, f.key) for f in summary.findings] == [
        ('duplicate', 'plain1'), ('flat', 'plain0'), ('flat', 'plain1'), ('flat', 'plain2')
    ]  # fmt: skip


def test_every_image_is_decoded_once_for_the_search(sets, monkeypatch):
    decoded = []
    decode = audit_module.decode_image
    monkeypatch.setattr(audit_module, 'decode_image', lambda data, name: decoded.append(name) or decode(data, name))
    audit([sets / 'train'], [sets / 'test'], sets / 'out')
    assert sorted(decoded) == sorted(str(p) for s in ('train', 'test') for p in (sets / s).rglob('*.png'))


def test_sets_of_one_name_are_told_apart(sets):
    (sets / 'a').mkdir()
    (sets / 'test').rename(sets / 'a' / 'train')
    summary = audit([sets / 'train'], [sets / 'a' / 'train'], sets / 'out')
    assert [row[0] for row in summary.rows] == [str(sets / 'train'), str(sets / 'a' / 'train')]


def test_each_of_several_training_sets_has_a_list_of_its_own(sets):
    plant(sets, 'leaked', lambda x: x)
    shutil.copytree(sets / 'train', sets / 'second')
    (sets / 'second' / 'input' / 'leaked.jpg').rename(sets / 'second' / 'input' / 'other.jpg')
    (sets / 'second' / 'target' / 'leaked.jpg').rename(sets / 'second' / 'target' / 'other.jpg')
    summary = audit([sets / 'train', sets / 'second'], [sets / 'test'], sets / 'out')
    lists = [sets / 'out' / f'exclude_keys_{i}.txt' for i in (1, 2)]
    assert summary.excluded == dict.fromkeys(lists, 1)
    assert [read_keys(path, 'exclude_keys') for path in lists] == [['leaked'], ['other']]


@pytest.mark.parametrize('name', ['#one', ' one', 'two\nlines'])
def test_names_that_no_list_can_hold_are_refused(name, sets):
    for side in ('input', 'target'):
        (sets / 'train' / side / 'photo0.png').rename(sets / 'train' / side / f'{name}.png')
    with pytest.raises(InputError, match='1 names cannot stand in a list of keys') as error:
        audit([sets / 'train'], [], sets / 'out')
    assert repr(name) in str(error.value)


def command(capsys, *argv):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    code = run(parser.parse_args([str(part) for part in argv]))
    return code, capsys.readouterr().out.splitlines()


def test_command_prints_a_table_and_where_the_files_are(sets, capsys):
    plant(sets, 'leaked', lambda x: x)
    out = sets / 'deep' / 'out'
    code, lines = command(capsys, '--train', sets / 'train', '--test', sets / 'test', '--out', out)
    assert code == 0
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines[:4]]
    assert rows[0][:5] == ['set', 'for', 'images', 'leak', 'duplicate']
    assert rows[2][:5] == ['train', 'train', '13', '1', '0']
    assert rows[3][:5] == ['test', 'test', '4', '1', '0']
    assert lines[4:] == [
        f'1 findings: {out / "audit.csv"}',
        f'images side by side: {out / "report.html"}',
        f'1 training keys to leave out: {out / "exclude_keys.txt"}',
    ]


@pytest.mark.parametrize(
    ('train', 'tests', 'message'),
    [
        ([], [], 'no set to audit; give --train SET'),
        (['absent'], [], '--train: no set in absent; wanted input.lmdb and target.lmdb there, or'),
        (['train'], ['train/input'], '--test: no set in train/input; wanted input.lmdb and'),
        (['train'], ['train/../train'], 'train: given twice; name each set once'),
        (['train'], ['empty'], '--test: no image in empty'),
    ],
)
def test_wrong_sets_are_refused_before_anything_is_written(train, tests, message, sets, monkeypatch):
    monkeypatch.chdir(sets)
    for side in ('input', 'target'):
        (sets / 'empty' / side).mkdir(parents=True)
    with pytest.raises(InputError) as error:
        audit(train, tests, 'out')
    assert message in str(error.value)
    assert not (sets / 'out').exists()


def test_out_that_is_a_file_is_refused(sets):
    (sets / 'out').write_text('', encoding='utf-8')
    with pytest.raises(InputError, match='no folder can be made there'):
        audit([sets / 'train'], [], sets / 'out')
