import pytest
from helpers import rows

from ddsa_arch.files.growing_table import GrowingTable, read_table


def filled(path, count=4):
    table = GrowingTable(path, 'i', 0)
    for i in range(1, count + 1):
        table.append({'i': i, 'loss': i / 10})
    return table


def test_rows_are_on_the_disk_one_by_one(tmp_path):
    path = tmp_path / 'a.csv'
    table = filled(path, 1)
    assert path.read_text(encoding='utf-8') == 'i,loss\n1,0.1\n'
    table.append({'i': 2, 'loss': 0.2})
    assert path.read_text(encoding='utf-8') == 'i,loss\n1,0.1\n2,0.2\n'


@pytest.mark.parametrize(('last', 'kept'), [(0, 0), (2, 2), (3, 3), (9, 4)])
def test_what_comes_after_the_last_row_wanted_is_dropped(last, kept, tmp_path):
    path = tmp_path / 'a.csv'
    filled(path)
    GrowingTable(path, 'i', last).append({'i': 10, 'loss': 1})
    assert [row['i'] for row in rows(path)] == [str(i) for i in range(1, kept + 1)] + ['10']


@pytest.mark.parametrize('cut', range(1, 8))
def test_a_torn_last_line_is_dropped(cut, tmp_path):
    """The file ends anywhere in its last line, `4,0.4\\n`, or just before it."""
    path = tmp_path / 'a.csv'
    filled(path)
    path.write_bytes(path.read_bytes()[:-cut])
    kept = ['1', '2', '3'] if cut <= 6 else ['1', '2']
    assert [row['i'] for row in read_table(path)] == kept
    GrowingTable(path, 'i', 9).append({'i': 10, 'loss': 1})
    assert [row['i'] for row in rows(path)] == [*kept, '10']


def test_rows_behind_a_broken_one_are_not_trusted(tmp_path):
    path = tmp_path / 'a.csv'
    path.write_bytes(b'i,loss\n1,0.1\n\0\0\0\n3,0.3\n')
    assert read_table(path) == [{'i': '1', 'loss': '0.1'}]


def test_a_new_column_is_empty_in_the_rows_before(tmp_path):
    path = tmp_path / 'a.csv'
    filled(path, 1).append({'i': 2, 'loss': 0.2, 'other': 7})
    assert rows(path) == [{'i': '1', 'loss': '0.1', 'other': ''}, {'i': '2', 'loss': '0.2', 'other': '7'}]


def test_no_file_has_no_rows(tmp_path):
    assert read_table(tmp_path / 'none.csv') == []
    (tmp_path / 'empty.csv').touch()
    assert read_table(tmp_path / 'empty.csv') == []


def test_names_that_spreadsheets_would_run_survive_a_table(tmp_path):
    table = GrowingTable(tmp_path / 'a.csv', 'iteration', 0)
    table.append({'iteration': 1, 'image': '=1+1'})
    table.append({'iteration': 2, 'image': '-x', 'loss': '-0.5'})
    table.append({'iteration': 3, 'image': '@x', 'loss': '0.5'})
    assert "'=1+1" in (tmp_path / 'a.csv').read_text(encoding='utf-8')
    assert [row['image'] for row in read_table(tmp_path / 'a.csv')] == ['=1+1', '-x', '@x']
    GrowingTable(tmp_path / 'a.csv', 'iteration', 3)
    assert [row['loss'] for row in read_table(tmp_path / 'a.csv')] == ['', '-0.5', '0.5']
