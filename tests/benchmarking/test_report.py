import csv

import cv2
import pytest

from ddsa_arch.benchmarking import report as benchmark_report
from ddsa_arch.benchmarking.report import COLUMNS, read_psnr, write_plots, write_tables
from ddsa_arch.errors import InputError

ROW = {
    'network': 'A', 'size': '8x16', 'dtype': 'float32', 'device': 'cpu', 'compiled': False, 'parameters': 1234567,
    'conv_macs': 2_500_000_000, 'macs': 3_000_000_000, 'flops': 6_100_000_000, 'activations': 4_000_000,
    'latency_ms': 12.3456, 'latency_p95_ms': 20.0, 'images_per_second': 81.0, 'peak_memory_mib': 64.25, 'note': '',
}  # fmt: skip
FAILED = {'network': 'B', 'size': '8x16', 'dtype': 'float32', 'device': 'cpu', 'compiled': False, 'note': 'a|b'}


def cells(line):
    return [cell.strip() for cell in line.replace(r'\|', '/').strip('|').split('|')]


def test_the_page_has_units_and_the_table_all_digits(tmp_path):
    write_tables(tmp_path / 'new', [ROW, FAILED], 'torch 0, 2 threads')
    with (tmp_path / 'new' / 'benchmark.csv').open(encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert (rows[0]['macs'], rows[0]['latency_ms'], rows[0]['compile_s']) == ('3000000000', '12.3456', '')
    lines = (tmp_path / 'new' / 'benchmark.md').read_text(encoding='utf-8').splitlines()
    shown = dict(zip(cells(lines[2]), cells(lines[4]), strict=True))
    assert shown['conv MACs (10^9)'] == '2.50'
    assert shown['activations (10^6)'] == '4.00'
    assert shown['latency, median (ms)'] == '12.35'
    assert shown['parameters'] == '1,234,567'
    assert 'compilation (s)' not in shown  # of no row
    failed = dict(zip(cells(lines[2]), cells(lines[5]), strict=True))
    assert (failed['network'], failed['parameters'], failed['note']) == ('B', '', 'a/b')
    assert 'torch 0, 2 threads' in lines


def test_scores_are_read_by_name(tmp_path):
    path = tmp_path / 'scores.csv'
    path.write_text('network,set,psnr\nA,x,31.5\n"B, small",x,30\nC,x,\nD,x,nan\n', encoding='utf-8-sig')
    assert read_psnr(path) == {'A': 31.5, 'B, small': 30.0}


def test_of_a_comparison_the_measured_rows_alone_count(tmp_path):
    path = tmp_path / 'comparison.csv'
    path.write_text('network,source,provenance,psnr\nA,measured,,31.5\nA,reported,own,40\nB,reported,quoted,30\n')
    assert read_psnr(path) == {'A': 31.5}


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('network,ssim\nA,1\n', "no column 'psnr'"),
        ('', "no column 'network'"),
        ('network,psnr\nA,1\nA,2\n', "'A' stands there twice"),
        ('network,psnr\nA,1\nB,good\n', "line 3: psnr 'good' is no number"),
    ],
)
def test_a_file_without_scores_is_refused(tmp_path, text, message):
    path = tmp_path / 'scores.csv'
    path.write_text(text, encoding='utf-8')
    with pytest.raises(InputError, match=message):
        read_psnr(path)


def test_a_missing_file_of_scores_is_named(tmp_path):
    with pytest.raises(InputError, match=r'none\.csv: cannot be read'):
        read_psnr(tmp_path / 'none.csv')


def test_plots_show_networks_with_a_score_alone(tmp_path):
    other = ROW | {'network': 'C', 'macs': 30_000_000_000}
    written = write_plots(tmp_path, [ROW, FAILED, other], {'A': 30.0, 'B': 31.0}, 'PSNR')
    assert [path.name for path in written] == ['psnr_against_macs.png', 'psnr_against_latency.png']
    assert all(cv2.imread(str(path)) is not None for path in written)
    assert write_plots(tmp_path / 'none', [ROW], {}, 'PSNR') == []
    assert write_plots(tmp_path / 'none', [FAILED], {'B': 31.0}, 'PSNR') == []
    assert not (tmp_path / 'none').exists()


def test_plots_name_what_differs_alone(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(benchmark_report, 'write_plot', lambda path, figure: drawn.update({path.name: figure.axes[0]}))
    setting = {'mode': 'inference', 'form': 'fast'}
    rows = [ROW | setting | change for change in ({'form': 'plain'}, {}, {'compiled': True})]
    write_plots(tmp_path, [row | {'latency_ms': 10 + i} for i, row in enumerate(rows)], {'A': 30.0}, 'PSNR')
    axes = drawn['psnr_against_latency.png']
    assert axes.get_xlabel() == 'latency, ms (8x16 inference float32 cpu)'
    keys = [text.get_text() for text in axes.get_legend().get_texts()]
    assert keys[-3:] == ['plain eager', 'fast eager', 'fast compiled']


def test_a_network_that_was_not_counted_is_in_the_plot_of_latency(tmp_path):
    row = {key: value for key, value in ROW.items() if key not in ('macs', 'conv_macs')}
    written = write_plots(tmp_path, [row], {'A': 30.0}, 'PSNR')
    assert [path.name for path in written] == ['psnr_against_latency.png']
