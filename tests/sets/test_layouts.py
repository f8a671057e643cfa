import zipfile

import numpy as np
import pytest

from ddsa_arch.errors import InputError
from ddsa_arch.files.images import encode_image
from ddsa_arch.sets.layouts import find_sets

IMAGE = encode_image(np.zeros((4, 4, 3), np.uint8))


def unpacked(root, *places):
    for place in places:
        for side in ('input', 'target'):
            folder = root / place / side
            folder.mkdir(parents=True)
            (folder / '1.png').write_bytes(IMAGE)
    return root


def zipped(path, *places, more=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, 'w') as archive:
        for place in places:
            for side in ('input', 'target'):
                archive.writestr(f'{place}/{side}/1.png'.lstrip('/'), IMAGE)
        for name in more:
            archive.writestr(name, b'x')
    return path


@pytest.mark.parametrize(
    ('place', 'name'),
    [
        ('train/Rain13K', 'Rain13K'), ('train', 'Rain13K'), ('Rain13k/train', 'Rain13K'),
        ('test/Test100', 'Test100'), ('Test1200', 'Test1200'), ('Rain13K/test/Rain100H', 'Rain100H'),
        ('test/rain100l', 'Rain100L'), ('a/b/Test2800', 'Test2800'),
    ],
)  # fmt: skip
@pytest.mark.parametrize('archive', [False, True])
def test_layout_of_the_field_is_recognised(place, name, archive, tmp_path):
    if archive:
        zipped(tmp_path / 'downloaded.zip', place)
    else:
        unpacked(tmp_path, place)
    found, unknown = find_sets(tmp_path)
    assert (list(found), unknown) == ([name], [])
    assert found[name].zipped is archive
    for files, side in zip(found[name].files, ('input', 'target'), strict=True):
        assert [(file.name, file.read_bytes()) for file in files] == [('1.png', IMAGE)]
        assert str(files[0]).endswith(f'{place}/{side}/1.png')


@pytest.mark.parametrize('root', ['Rain13K/train', 'Rain13K', 'Rain13K/test/Test100', '.'])
def test_root_may_be_the_set_itself_or_above(root, tmp_path, monkeypatch):
    unpacked(tmp_path, 'Rain13K/train', 'Rain13K/test/Test100')
    monkeypatch.chdir(tmp_path / root)
    found, _ = find_sets('.')
    expected = {'Rain13K/train': ['Rain13K'], 'Rain13K/test/Test100': ['Test100']}
    assert list(found) == expected.get(root, ['Rain13K', 'Test100'])


def test_all_sets_come_in_the_order_of_the_paper(tmp_path):
    zipped(tmp_path / 'test.zip', *(f'test/{name}' for name in ('Test1200', 'Rain100L', 'Test2800', 'Rain100H')))
    unpacked(tmp_path, 'train/Rain13K', 'Test100')
    found, unknown = find_sets(tmp_path)
    assert list(found) == ['Rain13K', 'Test100', 'Rain100H', 'Rain100L', 'Test2800', 'Test1200']
    assert unknown == []


def test_archive_may_be_the_root_and_hold_a_set_at_its_top(tmp_path):
    found, _ = find_sets(zipped(tmp_path / 'Rain100L.zip', ''))
    assert list(found) == ['Rain100L']


def test_unpacked_folder_goes_before_its_archive(tmp_path):
    unpacked(tmp_path, 'test/Test100')
    path = zipped(tmp_path / 'test.zip', 'test/Test100', 'test/Rain100H')
    found, unknown = find_sets(tmp_path)
    assert (found['Test100'].zipped, found['Rain100H'].zipped) == (False, True)
    assert unknown == [f'{path}, test/Test100: Test100 is taken from {tmp_path / "test" / "Test100"}']


def test_set_in_two_places_is_named_with_both(tmp_path):
    unpacked(tmp_path, 'old/Test100', 'new/Test100')
    with pytest.raises(InputError) as error:
        find_sets(tmp_path)
    places = f'{tmp_path / "new" / "Test100"} and {tmp_path / "old" / "Test100"}'
    assert str(error.value) == f'Test100 is there twice, {places}; remove one'


def test_what_a_mac_puts_into_archives_is_no_set(tmp_path):
    path = zipped(tmp_path / 'a.zip', 'Test100', '__MACOSX/Test100', more=['Test100/input/._1.png', 'Test100/x.txt'])
    found, unknown = find_sets(path)
    assert (list(found), unknown) == (['Test100'], [])


def test_archive_with_backslashes_is_read(tmp_path):
    path = zipped(tmp_path / 'a.zip', more=['Test100\\input\\1.png', 'Test100\\target\\1.png'])
    found, _ = find_sets(path)
    assert [file.name for file in found['Test100'].files[0]] == ['1.png']


def test_unknown_name_is_told_and_no_set_at_all_is_an_error(tmp_path):
    unpacked(tmp_path, 'Rain200L')
    with pytest.raises(InputError) as error:
        find_sets(tmp_path)
    message = str(error.value)
    assert message.startswith(
        f'--root: no set in {tmp_path} (seen: {tmp_path / "Rain200L"}: not the name of a set); wanted train/Rain13K'
    )
    assert message.endswith('For a set of your own: ddsa data lmdb')


def test_missing_root_is_named(tmp_path):
    with pytest.raises(InputError, match=r'--root: no folder or zip archive .*absent'):
        find_sets(tmp_path / 'absent')


def test_folder_that_links_to_itself_ends(tmp_path):
    unpacked(tmp_path, 'Test100')
    (tmp_path / 'loop').symlink_to(tmp_path, target_is_directory=True)
    assert list(find_sets(tmp_path)[0]) == ['Test100']


@pytest.mark.parametrize('method', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_is_named_however_an_entry_is_packed(method, tmp_path):
    path = tmp_path / 'a.zip'
    noise = np.random.default_rng(0).bytes(5000)
    with zipfile.ZipFile(path, 'w', method) as archive:
        for side in ('input', 'target'):
            archive.writestr(f'Test100/{side}/1.png', noise)
    data = bytearray(path.read_bytes())
    data[1000:1400] = bytes(400)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r'Test100/input/1\.png: damaged \(.*download the archive again'):
        find_sets(path)[0]['Test100'].files[0][0].read_bytes()
