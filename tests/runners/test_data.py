import re

import pytest
from helpers import names, write_noise

from ddsa_arch.errors import InputError
from ddsa_arch.files.lmdb_store import read_entries, read_value
from ddsa_arch.runners import cli, data
from ddsa_arch.runners.data_lmdb import make_lmdb

COUNT = 12


@pytest.fixture
def folders(tmp_path):
    """A folder with ``rain`` (JPEG) and ``clean`` (PNG) of pairs rain-1 ... rain-12."""
    for i in range(1, COUNT + 1):
        write_noise(tmp_path / 'rain' / f'rain-{i}.jpg', i)
        write_noise(tmp_path / 'clean' / f'rain-{i}.png', 100 + i)
    return tmp_path


def arguments(folder, **more):
    given = {'input': folder / 'rain', 'target': folder / 'clean', 'out': folder / 'out', **more}
    return ['lmdb', *(str(part) for key, value in given.items() for part in (f'--{key}', value))]


def run(folder, capsys, **more):
    """Exit code, standard output and standard error of ``ddsa data lmdb``."""
    code = cli.main(['data', *arguments(folder, **more)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_command_makes_both_stores_and_tells_so(folders, capsys):
    code, out, err = run(folders, capsys)
    assert (code, err) == (0, '')
    header, rule, first, second, matched, time = out.splitlines()
    assert matched == 'matched by: stem, equal names'
    assert [cell.strip() for cell in header.strip('|').split('|')] == ['LMDB', 'images', 'MiB']
    assert set(rule) == set('| -')
    for line, name in ((first, 'input.lmdb'), (second, 'target.lmdb')):
        store, images, size = (cell.strip() for cell in line.strip('|').split('|'))
        assert store == str(folders / 'out' / name)
        assert images == '12'
        assert float(size) == round((folders / 'out' / name / 'data.mdb').stat().st_size / 2**20, 1)
    assert re.fullmatch(r'made in \d+\.\d s', time)
    assert names(folders / 'out') == ['input.lmdb', 'target.lmdb']


def test_stores_hold_the_files_in_natural_order(folders):
    stores, _ = make_lmdb(folders / 'rain', folders / 'clean', folders / 'out')
    for store, side, suffix in zip(stores, ('rain', 'clean'), ('jpg', 'png'), strict=True):
        assert list(read_entries(store)) == [f'rain-{i}' for i in range(1, COUNT + 1)]
        for stem in read_entries(store):
            assert read_value(store, stem) == (folders / side / f'{stem}.{suffix}').read_bytes()


@pytest.mark.parametrize(
    ('pairs', 'expected'), [('1-3', [1, 2, 3]), ('2-2', [2]), ('9-12', [9, 10, 11, 12]), ('1-12', range(1, 13))]
)
def test_pairs_are_counted_from_1_in_natural_order(pairs, expected, folders):
    stores, _ = make_lmdb(folders / 'rain', folders / 'clean', folders / 'out', pairs)
    for store in stores:
        assert list(read_entries(store)) == [f'rain-{i}' for i in expected]


@pytest.mark.parametrize('pairs', ['0-3', '3-2', '1-13', '5', 'all', '-3', '1-', '1-3,5', '', ' 1-3'])
def test_wrong_selection_is_refused_with_the_range(pairs, folders):
    with pytest.raises(InputError) as error:
        make_lmdb(folders / 'rain', folders / 'clean', folders / 'out', pairs)
    assert str(error.value) == f'--pairs {pairs}: wanted FIRST-LAST within 1-12'
    assert names(folders) == ['clean', 'rain']


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        ({'input': 'absent'}, '--input: no folder absent'),
        ({'target': 'absent'}, '--target: no folder absent'),
        ({'pairs': '7-99'}, '--pairs 7-99: wanted FIRST-LAST within 1-12'),
    ],
)
def test_user_error_is_one_line_and_exit_code_2(more, message, folders, capsys):
    assert run(folders, capsys, **more) == (2, '', f'error: {message}\n')
    assert names(folders) == ['clean', 'rain']


def test_wrong_pairs_are_left_out_on_demand_and_named(folders, capsys):
    (folders / 'rain' / 'rain-2.jpg').write_bytes(b'')
    (folders / 'rain' / 'Thumbs.db').write_bytes(b'x')
    assert cli.main(['data', *arguments(folders), '--skip-bad']) == 0
    out = capsys.readouterr().out
    assert f'passed over {folders / "rain" / "Thumbs.db"}\n' in out
    assert f'left out: {folders / "rain" / "rain-2.jpg"}: empty (0 bytes)' in out
    assert list(read_entries(folders / 'out' / 'input.lmdb')) == [f'rain-{i}' for i in range(1, 13) if i != 2]


def test_existing_store_is_refused(folders, capsys):
    run(folders, capsys, pairs='1-2')
    code, out, err = run(folders, capsys)
    assert (code, out) == (2, '')
    store = folders / 'out' / 'input.lmdb'
    assert err == f'error: {store} is there already; delete it first, or give another --out\n'
    assert len(read_entries(store)) == 2


@pytest.mark.parametrize('argv', [[], ['lmdb'], ['lmdb', '--input', 'a', '--target', 'b'], ['zip']])
def test_missing_arguments_show_the_usage(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        data.main(argv)
    assert stop.value.code == 2
    assert 'usage: ddsa data' in capsys.readouterr().err
