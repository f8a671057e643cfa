import struct
import zipfile

import numpy as np
import pytest

from ddsa_arch.errors import InputError
from ddsa_arch.files.archives import broken_entries, open_archive

NAMES = ['train/input/1.jpg', 'train/input/雨 2.jpg', 'train/target/a..b.jpg', 'readme']
METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


def content(name):
    return np.random.default_rng(len(name)).bytes(3000)


def make(path, names=NAMES, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, 'w', method) as archive:
        for name in names:
            archive.writestr(name, content(name))
    return path


def make_named(path, name):
    """An archive with one entry whose name is written as it is, which Python's own writer would mend."""
    stand_in = 'x' * len(name.encode())
    make(path, ['a/b.jpg', stand_in])
    path.write_bytes(path.read_bytes().replace(stand_in.encode(), name.encode()))
    return path


@pytest.mark.parametrize('method', METHODS)
def test_sound_archive_is_opened_and_has_no_broken_entry(method, tmp_path):
    with open_archive(make(tmp_path / 'a.zip', method=method)) as archive:
        assert archive.namelist() == NAMES
        assert broken_entries(archive) == []


def test_progress_sees_every_entry(tmp_path):
    seen = []
    with open_archive(make(tmp_path / 'a.zip')) as archive:
        broken_entries(archive, lambda entries: (seen.append(e.filename) or e for e in entries))
    assert seen == NAMES


# No archive


@pytest.mark.parametrize(
    ('data', 'words'),
    [
        (b'', 'empty; download it again'),
        (b'hello', 'no zip archive; download it again'),
        (b'<!DOCTYPE html><html><head><title>Google Drive -\n Quota exceeded</title>',
         'a web page (Google Drive - Quota exceeded), not the archive; download it again'),
        (b'\n <HTML lang="en">Sign in', 'a web page, not the archive; download it again'),
        (b'\xef\xbb\xbf<html></html>', 'a web page, not the archive; download it again'),
    ],
)  # fmt: skip
def test_what_is_no_archive_is_told(data, words, tmp_path):
    (tmp_path / 'a.zip').write_bytes(data)
    with pytest.raises(InputError) as error:
        open_archive(tmp_path / 'a.zip')
    assert str(error.value) == f'{tmp_path / "a.zip"}: {words}'


@pytest.mark.parametrize('share', [0.01, 0.5, 0.99])
def test_archive_that_is_cut_off_is_told(share, tmp_path):
    data = make(tmp_path / 'a.zip').read_bytes()
    (tmp_path / 'a.zip').write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r'a\.zip: the archive is cut off or damaged; download it again$'):
        open_archive(tmp_path / 'a.zip')


def test_names_that_are_no_text_are_told(tmp_path):
    data = make(tmp_path / 'a.zip', ['雨.jpg']).read_bytes()
    (tmp_path / 'a.zip').write_bytes(data.replace('雨'.encode(), b'\xff\xff\xff'))
    with pytest.raises(InputError, match='cut off or damaged'):
        open_archive(tmp_path / 'a.zip')


@pytest.mark.parametrize('name', ['absent.zip', '.'])
def test_file_that_cannot_be_read_is_told(name, tmp_path):
    with pytest.raises(InputError, match='cannot be read'):
        open_archive(tmp_path / name)


# Unsafe entries


@pytest.mark.parametrize(
    'name',
    [
        '/etc/passwd',
        '../up.jpg',
        'a/../../up.jpg',
        'a/..',
        '..',
        '..\\up.jpg',
        'a\\..\\..\\up.jpg',
        'a/..\\up.jpg',
        '\\up.jpg',
        '\\\\server\\share\\a.jpg',
        'C:\\Windows\\a.jpg',
        'c:/a.jpg',
        'c:a.jpg',
        'a.jpg\0../up',
    ],
)
def test_entry_that_leads_out_of_the_folder_is_refused(name, tmp_path):
    path = make_named(tmp_path / 'a.zip', name)
    with pytest.raises(InputError) as error:
        open_archive(path)
    assert str(error.value).startswith(f'{path}: 1 entries name a place outside the folder they are unpacked in: ')
    assert f'{name!r}; do not unpack it' in str(error.value)


@pytest.mark.parametrize('name', ['a/b.jpg', 'a\\b.jpg', '...jpg', 'a..b/c.jpg', 'a/...', './a.jpg', 'ab:c.jpg', '~/a'])
def test_entry_that_stays_below_is_taken(name, tmp_path):
    with open_archive(make_named(tmp_path / 'a.zip', name)) as archive:
        assert archive.namelist() == ['a/b.jpg', name]


def test_encrypted_entries_are_named(tmp_path):
    """A zip archive marks an encrypted entry in the lowest bit of its flags, bytes 8 and 9 of its record."""
    path = make(tmp_path / 'a.zip')
    data = bytearray(path.read_bytes())
    record = data.find(b'PK\x01\x02')
    data[record + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r'a\.zip: 1 entries are encrypted: train/input/1\.jpg; unpack it with its'):
        open_archive(path)


# Damage


@pytest.mark.parametrize('method', METHODS)
def test_one_changed_byte_is_found(method, tmp_path):
    path = make(tmp_path / 'a.zip', method=method)
    with zipfile.ZipFile(path) as archive:
        info = archive.infolist()[1]
    data = bytearray(path.read_bytes())
    data[info.header_offset + 30 + len(info.filename.encode()) + info.compress_size // 2] ^= 0x10
    path.write_bytes(data)
    with open_archive(path) as archive:
        assert broken_entries(archive) == ['train/input/雨 2.jpg']


def test_wrong_crc_in_the_list_is_found(tmp_path):
    path = make(tmp_path / 'a.zip')
    data = bytearray(path.read_bytes())
    record = data.find(b'PK\x01\x02')
    struct.pack_into('<I', data, record + 16, 12345)
    path.write_bytes(data)
    with open_archive(path) as archive:
        assert broken_entries(archive) == ['train/input/1.jpg']
