import csv
import math

import pytest

from ddsa_arch.files.tables import finite_mean, markdown_table, plain_cell, write_csv


def test_csv_is_what_the_standard_reader_reads(tmp_path):
    path = tmp_path / 'new' / 'results.csv'
    rows = [{'image': 'a, "b"', 'psnr': 31.5}, {'image': 'Zürich 雨', 'psnr': math.inf, 'ignored': 1}, {'image': 'c'}]
    write_csv(path, rows, ['image', 'psnr'])
    with path.open(encoding='utf-8', newline='') as file:
        read = list(csv.reader(file))
    assert read == [['image', 'psnr'], ['a, "b"', '31.5'], ['Zürich 雨', 'inf'], ['c', '']]
    assert [p.name for p in path.parent.iterdir()] == ['results.csv']


def test_csv_without_rows_has_a_header(tmp_path):
    write_csv(tmp_path / 'a.csv', [], ['image', 'psnr'])
    assert (tmp_path / 'a.csv').read_text(encoding='utf-8') == 'image,psnr\n'


def test_failing_rows_leave_the_old_csv_alone(tmp_path):
    def rows():
        yield {'image': 'new'}
        raise RuntimeError

    path = tmp_path / 'a.csv'
    path.write_text('old', encoding='utf-8')
    with pytest.raises(RuntimeError):
        write_csv(path, rows(), ['image'])
    assert path.read_text(encoding='utf-8') == 'old'
    assert [p.name for p in tmp_path.iterdir()] == ['a.csv']


def test_markdown_lines_up():
    table = markdown_table([('Rain100L', 39.05), ('x', 7)], ('set', 'PSNR'))
    assert table == '\n'.join([
        '| set      | PSNR  |',
        '| -------- | ----- |',
        '| Rain100L | 39.05 |',
        '| x        | 7     |',
    ])  # fmt: skip


def test_markdown_without_rows_is_a_header():
    assert markdown_table([], ('a', 'bc')) == '| a | bc |\n| - | -- |'


def test_row_of_another_length_than_the_header_is_refused():
    with pytest.raises(ValueError, match=r'shorter|longer'):
        markdown_table([(1, 2, 3)], ('a', 'b'))


def test_mean_leaves_out_what_is_not_finite():
    assert finite_mean([1.0, math.inf, 3.0, math.nan, -math.inf]) == 2.0
    assert math.isnan(finite_mean([math.inf, math.nan]))
    assert math.isnan(finite_mean([]))


FORMULAS = ['=HYPERLINK("x")', '+49 rain', '-1 street', '@home', '\tTab']


def test_names_that_spreadsheets_would_run_are_quoted_and_numbers_stay(tmp_path):
    cells = [*FORMULAS, 'a=b', '-1.5', '+inf', "'quoted", -2.5, None]
    write_csv(tmp_path / 'a.csv', [{'image': cell} for cell in cells], ['image'])
    with (tmp_path / 'a.csv').open(encoding='utf-8', newline='') as file:
        read = [row['image'] for row in csv.DictReader(file)]
    assert read == [*(f"'{text}" for text in FORMULAS), 'a=b', '-1.5', '+inf', "'quoted", '-2.5', '']
    assert [plain_cell(text) for text in read[: len(FORMULAS)]] == FORMULAS
    assert plain_cell("'quoted") == "'quoted"
