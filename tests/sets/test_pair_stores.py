import os
import shutil
import signal

import lmdb
import pytest
from helpers import content, in_child, killing, names, needs_fork, write_noise, write_stores

from ddsa_arch.errors import InputError
from ddsa_arch.files import lmdb_store
from ddsa_arch.files.images import decode_image, images_by_stem
from ddsa_arch.files.lmdb_store import read_entries, read_value
from ddsa_arch.files.matching import Pairs
from ddsa_arch.sets import pair_stores
from ddsa_arch.sets.pair_stores import write_pair_stores

# What cannot be used


def test_all_bad_pairs_are_named_in_one_message_and_nothing_is_left(tmp_path):
    rain, clean = tmp_path / 'rain', tmp_path / 'clean'
    for i in range(5):
        write_noise(rain / f'{i}.png', i)
        write_noise(clean / f'{i}.png', i)
    (rain / '1.png').write_bytes(b'')
    (clean / '1.png').write_bytes(b'<html>')
    (clean / '2.png').write_bytes((clean / '2.png').read_bytes()[:100])
    write_noise(clean / '3.png', height=12, width=11)
    with pytest.raises(InputError) as error:
        write_stores(images_by_stem(rain), images_by_stem(clean), tmp_path / 'sets' / 'new' / 'out')
    remedy = 'replace it, or remove it together with its partner'
    assert str(error.value).splitlines() == [
        '4 problems:',
        f'  {rain / "1.png"}: empty (0 bytes); {remedy}',
        f'  {clean / "1.png"}: truncated or not an image (6 bytes); {remedy}',
        f'  {clean / "2.png"}: truncated or not an image (100 bytes); {remedy}',
        '  3: input and target have unequal sizes, 10 x 12 and 11 x 12; replace or remove the pair',
        'Mend these, or leave them out with --skip-bad',
    ]
    assert names(tmp_path) == ['clean', 'rain']


def test_error_leaves_a_folder_that_was_there_and_its_files(tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'notes.txt').touch()
    broken = tmp_path / 'a.png'
    broken.write_bytes(b'x')
    with pytest.raises(InputError, match=r'a\.png'):
        write_stores({'a': broken}, {'a': broken}, out)
    assert names(out) == ['notes.txt']


def test_error_leaves_what_another_command_put_into_a_new_folder(tmp_path):
    def progress(items):
        yield from items
        (tmp_path / 'sets' / 'other').mkdir()

    broken = tmp_path / 'a.png'
    broken.write_bytes(b'x')
    with pytest.raises(InputError):
        write_stores({'a': broken}, {'a': broken}, tmp_path / 'sets' / 'out', progress)
    assert names(tmp_path / 'sets') == ['other']


def test_longest_name_that_is_allowed_is_stored(tmp_path):
    file = write_noise(tmp_path / 'a.png')
    store, _ = write_stores({'n' * 500: file}, {'n' * 500: file}, tmp_path / 'out')
    assert read_value(store, 'n' * 500) == file.read_bytes()


@pytest.mark.parametrize('which', ['input.lmdb', 'target.lmdb'])
def test_existing_store_is_refused_and_untouched(which, sides, tmp_path):
    out = tmp_path / 'out'
    write_stores(*sides, out)
    shutil.rmtree(out / ({'input.lmdb', 'target.lmdb'} - {which}).pop())
    before = {p.name: p.read_bytes() for p in (out / which).iterdir()}
    with pytest.raises(InputError) as error:
        write_stores(*sides, out)
    assert str(error.value) == f'{out / which} is there already; delete it first, or give another --out'
    assert names(out) == [which]
    assert {p.name: p.read_bytes() for p in (out / which).iterdir()} == before


def test_out_that_cannot_be_a_folder_is_named(sides, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(InputError, match=r'file.out: cannot be written \(.*; mend that and run the command again'):
        write_stores(*sides, tmp_path / 'file' / 'out')
    assert (tmp_path / 'file').is_file()


def test_missing_source_file_is_an_error_that_makes_nothing(sides, tmp_path):
    sides[1]['norain-2'].unlink()
    with pytest.raises(InputError, match=r'norain-2\.png: cannot be read \(No such file'):
        write_stores(*sides, tmp_path / 'out')
    assert names(tmp_path) == ['clean', 'rain']


# Leaving out


def test_what_is_wrong_is_left_out_and_told_where_that_is_wanted(many, tmp_path):
    many[0]['3'].write_bytes(b'')
    write_noise(many[1]['5'], height=4, width=4)
    found = Pairs(*many, problems=['rain: lonely.png has no partner'])
    stores, left_out = write_pair_stores(found, tmp_path / 'out', skip_bad=True)
    assert [text.split(';')[0] for text in left_out] == [
        'left out: rain: lonely.png has no partner',
        f'left out: {many[0]["3"]}: empty (0 bytes)',
        'left out: 5: input and target have unequal sizes, 2 x 3 and 4 x 4',
    ]
    for store, side in zip(stores, many, strict=True):
        assert content(store) == {f'{i}'.encode(): side[f'{i}'].read_bytes() for i in range(24) if i not in (3, 5)}
        assert list(read_entries(store)) == [f'{i}' for i in range(24) if i not in (3, 5)]


def test_surplus_of_unequal_pairs_is_left_out_and_no_other_fault(many, tmp_path):
    write_noise(many[1]['5'], height=4, width=4)
    stores, left_out = write_pair_stores(Pairs(*many), tmp_path / 'out', surplus=1)
    assert len(read_entries(stores[0])) == 23
    assert left_out == ['left out: 5: input and target have unequal sizes, 2 x 3 and 4 x 4; replace or remove the pair']
    write_noise(many[1]['7'], height=4, width=4)
    with pytest.raises(InputError, match=r'1 problems:\n  7: input and target'):
        write_pair_stores(Pairs(*many), tmp_path / 'second', surplus=1)
    many[0]['5'].write_bytes(b'')
    with pytest.raises(InputError, match=r'5\.bmp: empty'):
        write_pair_stores(Pairs(*many), tmp_path / 'second', surplus=1)
    assert names(tmp_path) == ['clean', 'out', 'rain']


def test_no_pair_that_can_be_used_is_an_error_even_then(many, tmp_path):
    for file in many[0].values():
        file.write_bytes(b'')
    with pytest.raises(InputError, match='out: no pair can be used:\n'):
        write_pair_stores(Pairs(*many), tmp_path / 'out', skip_bad=True)
    assert names(tmp_path) == ['clean', 'rain']


@needs_fork
def test_a_second_writer_of_the_same_stores_is_refused(many, tmp_path):
    out = tmp_path / 'out'
    messages = []

    def progress(items):
        for i, item in enumerate(items):
            if i == 5:
                with pytest.raises(InputError) as error:
                    write_stores(*many, out)
                messages.append(str(error.value))
            yield item

    write_stores(*many, out, progress)
    assert messages == [f'{out} is in use by this process; give another --out']
    assert names(out) == ['input.lmdb', 'target.lmdb']


def test_disk_without_room_is_told_before_the_work(many, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=100_000))
    with pytest.raises(InputError, match=r'out: 0 MiB are free on its disk and 0 MiB are needed; make room'):
        write_stores(*many, tmp_path / 'out')
    assert names(tmp_path) == ['clean', 'rain']


# Interruptions


@needs_fork
@pytest.mark.parametrize('at', [1, 14, 23])
def test_killed_writing_is_completed_by_the_next_call(at, many, tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_store, 'COMMIT_EVERY', 4)
    plain, out = tmp_path / 'plain', tmp_path / 'out'
    write_stores(*many, plain)
    assert in_child(write_stores, *many, out, killing(at)) == -signal.SIGKILL
    assert names(out) == ['input.lmdb.part', 'target.lmdb.part']
    decoded = []
    monkeypatch.setattr(
        pair_stores, 'decode_image', lambda data, name: decoded.append(name) or decode_image(data, name)
    )
    write_stores(*many, out)
    assert names(out) == ['input.lmdb', 'target.lmdb']
    for store in ('input.lmdb', 'target.lmdb'):
        assert content(out / store) == content(plain / store)
        assert (out / store / 'meta_info.txt').read_bytes() == (plain / store / 'meta_info.txt').read_bytes()
    committed = at // 4 * 4
    assert len(decoded) == 2 * (24 - committed)  # what was committed is not checked again


@needs_fork
def test_image_that_changed_after_a_kill_is_checked_and_stored_anew(many, tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_store, 'COMMIT_EVERY', 4)
    out = tmp_path / 'out'
    in_child(write_stores, *many, out, killing(14))
    for side in many:
        write_noise(side['2'], 77, height=5, width=6)
    store, _ = write_stores(*many, out)
    assert read_value(store, '2') == many[0]['2'].read_bytes()
    assert read_entries(store)['2'].shape == (5, 6, 3)


@needs_fork
def test_broken_image_after_a_kill_leaves_nothing(many, tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_store, 'COMMIT_EVERY', 4)
    out = tmp_path / 'out'
    in_child(write_stores, *many, out, killing(14))
    many[0]['20'].write_bytes(b'')
    with pytest.raises(InputError, match=r'1 problems:'):
        write_stores(*many, out)
    assert names(out) == []


@needs_fork
def test_images_of_another_interrupted_run_do_not_stay(many, tmp_path, monkeypatch):
    """They may even be larger than all that is written now."""
    monkeypatch.setattr(lmdb_store, 'COMMIT_EVERY', 4)
    monkeypatch.setattr(lmdb_store, 'MAP_SPARE', 1 << 16)
    large = [
        {f'big{i}': write_noise(tmp_path / 'large' / f'big{i}.bmp', i, height=64, width=64) for i in range(24)}
    ] * 2
    in_child(write_stores, *large, tmp_path / 'out', killing(22))
    store, _ = write_stores(*many, tmp_path / 'out')
    assert content(store) == {stem.encode(): path.read_bytes() for stem, path in many[0].items()}
    assert list(read_entries(store)) == list(many[0])


@needs_fork
@pytest.mark.parametrize('first', ['input', 'target'])
def test_kill_between_the_two_renames_is_mended(first, many, tmp_path, monkeypatch):
    out = tmp_path / 'out'

    def publish_one_and_die(writer):
        if writer.final.name.startswith(first):
            os.replace(writer.part, writer.final)
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(lmdb_store.StoreWriter, 'publish', publish_one_and_die)
        assert in_child(write_stores, *many, out) == -signal.SIGKILL
    second = 'target' if first == 'input' else 'input'
    assert names(out) == sorted([f'{first}.lmdb', f'{second}.lmdb.part'])
    stores = write_stores(*many, out)
    assert names(out) == ['input.lmdb', 'target.lmdb']
    for store, side in zip(stores, many, strict=True):
        assert content(store) == {stem.encode(): path.read_bytes() for stem, path in side.items()}
        assert list(read_entries(store)) == list(side)


@needs_fork
def test_bad_names_leave_a_half_published_pair_as_it_is(many, tmp_path):
    out = tmp_path / 'out'
    write_stores(*many, out)
    (out / 'target.lmdb').rename(out / 'target.lmdb.part')
    with pytest.raises(InputError, match='is there already'):
        write_pair_stores(Pairs(*many, problems=["'a.b' cannot be the key of an LMDB"]), out)
    assert names(out) == ['input.lmdb', 'target.lmdb.part']


def test_interrupt_from_the_keyboard_is_completed_by_the_next_call(many, tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_store, 'COMMIT_EVERY', 4)

    def progress(items):
        for i, item in enumerate(items):
            if i == 10:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        write_stores(*many, tmp_path / 'out', progress)
    assert names(tmp_path / 'out') == ['input.lmdb.part', 'target.lmdb.part']
    store, _ = write_stores(*many, tmp_path / 'out')
    assert list(read_entries(store)) == list(many[0])


@needs_fork
def test_full_disk_is_told_and_the_next_call_goes_on(many, tmp_path):
    out, report = tmp_path / 'out', tmp_path / 'report.txt'
    large = [
        {f'{i}': write_noise(tmp_path / side / f'{i}.bmp', i, height=64, width=64) for i in range(24)} for side in 'ab'
    ]

    def write_on_a_full_disk():
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_stores(*large, out)
        except InputError as error:
            report.write_text(str(error), encoding='utf-8')

    assert in_child(write_on_a_full_disk) == 0
    message = report.read_text(encoding='utf-8')
    assert message.startswith(f'{out}: cannot be written (')
    assert 'mend that and run the command again, which goes on where it stopped' in message
    store, _ = write_stores(*large, out)
    assert content(store) == {stem.encode(): path.read_bytes() for stem, path in large[0].items()}


def test_error_on_a_full_disk_says_so(many, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    free = iter([usage.free, 0])
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=next(free)))

    def fail(writer, entry, data):
        raise lmdb.DiskError('mdb_txn_commit: Input/output error')

    monkeypatch.setattr(lmdb_store.StoreWriter, 'put', fail)
    with pytest.raises(InputError, match=r'cannot be written \(.*Input/output error, the disk is full\); mend that'):
        write_stores(*many, tmp_path / 'out')
