import math
import re

import pytest

from ddsa_arch.archs.cards import REPORTED
from ddsa_arch.comparison.tables import (
    AVERAGE,
    Row,
    ablation_table,
    marks,
    methods_table,
    sets_table,
    to_latex,
    to_markdown,
    with_average,
)

BOTH = ('psnr', 'ssim')
COLUMNS = [('A', BOTH), ('B', BOTH), (AVERAGE, BOTH)]


def row(name, a, b=None, **more):
    means = {'A': dict(zip(BOTH, a, strict=True))}
    if b:
        means['B'] = dict(zip(BOTH, b, strict=True))
    return Row(name, with_average(means, ['A', 'B'], BOTH), **more)


@pytest.fixture
def rows():
    return [
        row('one', (30.004, 0.9), (34, 0.95)),
        row('two', (31, 0.91), (33, 0.94)),
        row('three', (20, 0.5)),
        row('old', (35, 0.99), (36, 0.98), kind=REPORTED, digits={'ssim': 3}),
        row('older', (29, 0.8), (36, 0.97), kind=REPORTED, digits={'ssim': 3}),
    ]


def cells(markdown):
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in markdown.splitlines()]


def test_the_average_is_the_mean_of_the_set_means_of_a_method_that_has_all():
    means = with_average({'A': {'psnr': 30.0}, 'B': {'psnr': 34.0}}, ['A', 'B'], ['psnr'])
    assert means[AVERAGE]['psnr'] == 32.0
    assert math.isnan(with_average({'A': {'psnr': 30.0}}, ['A', 'B'], ['psnr'])[AVERAGE]['psnr'])


def test_best_and_second_best_are_marked_apart_for_measured_and_reported(rows):
    assert marks(rows, 'A', 'psnr') == ['second', 'best', '', 'best', 'second']
    assert marks(rows, 'B', 'psnr') == ['best', 'second', '', 'best', 'best']  # equal as printed
    assert marks(rows, AVERAGE, 'psnr') == ['best', 'best', '', 'best', 'second']  # 32.002 and 32 are printed alike


def test_of_niqe_the_lowest_is_the_best():
    found = [Row(str(v), {'real': {'niqe': v}}) for v in (4.2, 3.9, 5.0, math.nan)]
    assert marks(found, 'real', 'niqe') == ['second', 'best', '', '']


def test_a_row_alone_is_not_marked_as_the_best():
    assert marks([row('one', (30, 0.9))], 'A', 'psnr') == ['']


def test_table_1_as_markdown(rows):
    lines = cells(to_markdown(sets_table(rows, COLUMNS)))
    assert lines[0] == ['Method', 'A PSNR', 'A SSIM', 'B PSNR', 'B SSIM', 'Average PSNR', 'Average SSIM']
    assert lines[2] == ['one', '*30.00*', '*0.9000*', '**34.00**', '**0.9500**', '**32.00**', '**0.9250**']
    assert lines[4] == ['three', '20.00', '0.5000', '-', '-', '-', '-']
    assert lines[5][:3] == ['old (reported)', '**35.00**', '**0.990**']


def test_table_2_has_the_methods_across():
    rows = [Row('Rainy', {'real': {'niqe': 5.9, 'brisque': 34.0}}), Row('X', {'real': {'niqe': 4.0, 'brisque': 35.0}})]
    lines = cells(to_markdown(methods_table(rows, [('real', ('niqe', 'brisque'))])))
    assert lines[0] == ['Method', 'Rainy', 'X']
    assert lines[2] == ['NIQE / BRISQUE, real', '*5.900* / **34.000**', '**4.000** / *35.000*']


def test_table_3_ticks_the_parts():
    first = Row('(a)', {'A': {'psnr': 28.0}}, switches={'DSA': True})
    rows = [first, Row('(b)', {}, switches={'DSA': False, 'SA': True})]
    lines = cells(to_markdown(ablation_table(rows, [('A', ('psnr',))], ('DSA', 'SA'))))
    assert lines[2:] == [['DSA', '✓', ''], ['SA', '', '✓'], ['PSNR, A', '**28.00**', '-']]


def test_latex_has_as_many_cells_as_columns_in_every_line(rows):
    text = to_latex(sets_table(rows, COLUMNS), '50 % of A_B & C')
    assert r'\caption{50 \% of A\_B \& C}' in text
    columns = len(re.search(r'begin\{tabular\}\{(.*)\}', text)[1].replace(' ', ''))
    body = [line for line in text.splitlines() if line.endswith(r'\\') and 'multicolumn' not in line]
    assert columns == 7
    assert {len(re.split(r'(?<!\\)&', line)) for line in body} == {7}
    spans = [int(n) for n in re.findall(r'multicolumn\{(\d)', text)]
    assert sum(spans) == 6
    assert r'\textbf{34.00}' in text
    assert r'\underline{30.00}' in text
    assert text.count(r'\midrule') == 2  # below the header, and between measured and reported rows
    assert text.count('{') == text.count('}') - text.count(r'\}') + text.count(r'\{')


def test_signs_of_latex_and_markdown_in_names_are_harmless():
    table = sets_table([row(r'50%_$|\^', (30, 0.9))], [('A', BOTH)])
    assert r'50\%\_\$|\textbackslash{}\textasciicircum{}' in to_latex(table, '')
    assert r'50%_$\|\^' in to_markdown(table)
