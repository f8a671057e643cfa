"""The files of a benchmark: its table as CSV and as a page, and plots of PSNR against cost."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddsa_arch.archs.cards import MEASURED
from ddsa_arch.errors import InputError
from ddsa_arch.files.atomic import write_text
from ddsa_arch.files.plots import Point, scatter, write_plot
from ddsa_arch.files.tables import markdown_table, write_csv

TABLE, PAGE = 'benchmark.csv', 'benchmark.md'
MACS_PLOT, LATENCY_PLOT = 'psnr_against_macs.png', 'psnr_against_latency.png'
FILES = (TABLE, PAGE, MACS_PLOT, LATENCY_PLOT)
COLUMNS = (
    'network', 'size', 'mode', 'form', 'dtype', 'device', 'device_name', 'threads', 'compiled', 'parameters',
    'conv_macs', 'macs', 'flops', 'activations', 'latency_ms', 'latency_p95_ms', 'images_per_second', 'times_plain',
    'gemm_share', 'gemm_gflops', 'copy_gbs', 'compile_s', 'peak_memory_mib', 'memory_of_plain', 'note',
)  # fmt: skip
PSNR_COLUMNS = ('network', 'psnr')
ON_PAGE = {  # column: header with the unit, and how its values are written
    'network': ('network', '{}'),
    'size': ('H x W (pixels)', '{}'),
    'mode': ('mode', '{}'),
    'form': ('form', '{}'),
    'dtype': ('dtype', '{}'),
    'compiled': ('compiled', '{}'),
    'parameters': ('parameters', '{:,}'),
    'conv_macs': ('conv MACs (10^9)', '{:.2f}'),
    'macs': ('all MACs (10^9)', '{:.2f}'),
    'flops': ('FLOPs (10^9)', '{:.2f}'),
    'activations': ('activations (10^6)', '{:.2f}'),
    'latency_ms': ('latency, median (ms)', '{:.2f}'),
    'latency_p95_ms': ('latency, 95 % (ms)', '{:.2f}'),
    'images_per_second': ('images/s', '{:.2f}'),
    'times_plain': ('speed over the plain form', '{:.2f}'),
    'gemm_share': ('share of the GEMM rate', '{:.1%}'),
    'gemm_gflops': ('GEMM rate (GFLOP/s)', '{:.0f}'),
    'copy_gbs': ('copies (GB/s)', '{:.1f}'),
    'compile_s': ('compilation (s)', '{:.1f}'),
    'peak_memory_mib': ('peak memory (MiB)', '{:.1f}'),
    'memory_of_plain': ('memory over that of the plain form', '{:.2f}'),
    'note': ('note', '{}'),
}
SCALES = {'conv_macs': 1e9, 'macs': 1e9, 'flops': 1e9, 'activations': 1e6}
DEFINITIONS = '''\
One image at a time, padded or cut into tiles as `ddsa derain` does it, with random weights. Operations are counted in
the papers' order, time and memory are those of the form that runs, which does a little less. *Conv MACs*: multiply-adds
with weights, those of convolutions and linear layers, what most papers print. *All MACs*: with products between
features, such as those of attention. *FLOPs*: two for each multiply-add, one for each element that an element-wise
function gives or that a sum, mean or pooling takes, 5 an element for layer norms (4 without weights) and 2 for batch
norms, 4 for softmax and bilinear resizing; biases, comparing, choosing and moving are free. *Activations*: elements
that convolutions, linear layers and products give. Padding is counted with the network, blending tiles is not.
*Latency*: of the whole call, the image already on the device. *Peak memory*: on a GPU what torch allocates, weights and
image included, without CUDA's own context; on a CPU the resident memory of the process above what it was before the
network was built: weights, features and what the kernels keep, without libraries and image. *Form*: *plain* is the
published order of operations, channels not last, memory handed back to the system, as most code runs; *fast* is what
all commands run. *Share of the GEMM rate*: 2 x all MACs over latency, against the rate of a product of large square
matrices of the same type, measured in turn with the runs; a training step counts three times its forward pass.
*Training*: forward, backward and AdamW, with train.amp where the type is not float32. *Copies*: bytes read and written.
*Compilation*: the first call, nothing cached. On a CPU the peak memory of a compiled network leaves out what that call
leaves in the process, the compiler and buffers of kernels; that of the others holds such buffers.
'''  # fmt: skip
WITH_PRODUCTS = 'products between features too, as in attention'
WEIGHTS_ALONE = 'convolutions and linear layers alone'


def write_tables(out: str | Path, rows: Sequence[Mapping[str, Any]], about: str) -> None:
    """Write ``benchmark.csv`` and ``benchmark.md``.

    Args:
        out: folder; made if it is missing.
        rows: by ``COLUMNS``; a figure that is not there is missing or None.
        about: a line about versions and the machine, below the table.
    """
    write_csv(Path(out) / TABLE, rows, COLUMNS)
    shown = [
        column for column in ON_PAGE if column in ('network', 'note') or any(_is_there(row, column) for row in rows)
    ]
    cells = [[_cell(row, column) for column in shown] for row in rows]
    table = markdown_table(cells, [ON_PAGE[column][0] for column in shown])
    write_text(Path(out) / PAGE, f'# Benchmark\n\n{table}\n\n{about}\n\n{DEFINITIONS}')


def _is_there(row: Mapping[str, Any], column: str) -> bool:
    return row.get(column) is not None


def _cell(row: Mapping[str, Any], column: str) -> str:
    if not _is_there(row, column):
        return ''
    value = row[column]
    if isinstance(value, bool):
        value = 'yes' if value else 'no'
    text = ON_PAGE[column][1].format(value / SCALES[column] if column in SCALES else value)
    return text.replace('|', r'\|').replace('\n', ' ')


def read_psnr(path: str | Path) -> dict[str, float]:
    """Read the PSNR of each network in dB from the columns ``network`` and ``psnr`` of a CSV file, if not empty.

    In comparison.csv of `ddsa compare`, which says so in its column ``source``, rows that were reported are passed too.

    Raises:
        InputError: no such file or column, a network that stands there twice, or what is no number.
    """
    try:
        with Path(path).open(encoding='utf-8-sig', newline='') as file:
            reader = csv.DictReader(file)
            rows, found = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f'--psnr {path}: cannot be read ({error}); wanted a CSV file') from error
    missing = [column for column in PSNR_COLUMNS if column not in found]
    if missing:
        raise InputError(f'--psnr {path}: no column {missing[0]!r}; wanted network,psnr, found {",".join(found)}')
    scores: dict[str, float] = {}
    for line, row in enumerate(rows, 2):
        name, text = (row[column] or '' for column in PSNR_COLUMNS)
        if not name or not text.strip() or row.get('source', MEASURED) != MEASURED:
            continue
        if name in scores:
            raise InputError(f'--psnr {path}: {name!r} stands there twice; keep one row of it')
        try:
            scores[name] = float(text)
        except ValueError as error:
            raise InputError(f'--psnr {path}, line {line}: psnr {text!r} is no number; give dB') from error
    return {name: score for name, score in scores.items() if math.isfinite(score)}


def write_plots(
    out: str | Path, rows: Sequence[Mapping[str, Any]], psnr: Mapping[str, float], psnr_label: str
) -> list[Path]:
    """Draw PSNR against multiply-adds and against latency, where there is a point to draw.

    Args:
        out: folder.
        rows: see ``write_tables``.
        psnr: of networks, dB.
        psnr_label: of the y axis.

    Returns:
        The files that were written.
    """
    scored = [row for row in rows if row['network'] in psnr]
    families = {
        row['network']: WITH_PRODUCTS if row['macs'] > row['conv_macs'] else WEIGHTS_ALONE
        for row in scored
        if _is_there(row, 'macs')
    }
    written = []
    for name, x, unit, settings in (
        (MACS_PLOT, 'macs', 'multiply-adds, 10^9', ('size',)),
        (LATENCY_PLOT, 'latency_ms', 'latency, ms', ('size', 'mode', 'form', 'dtype', 'device', 'compiled')),
    ):
        drawn = [row for row in scored if _is_there(row, x)]
        same = [column for column in settings if len({row.get(column) for row in drawn}) == 1]
        different = [column for column in settings if column not in same]
        points: dict[tuple[str, str], Point] = {}
        for row in drawn:
            value, family = row[x] / SCALES.get(x, 1), families.get(row['network'], '')
            point = Point(row['network'], value, psnr[row['network']], family, _setting(row, different))
            points.setdefault((point.name, point.setting), point)
        if points:
            label = f'{unit} ({_setting(drawn[0], same)})' if same else unit
            write_plot(Path(out) / name, scatter(list(points.values()), 'Quality against cost', label, psnr_label))
            written.append(Path(out) / name)
    return written


def _setting(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    """Return the settings of a row as text, such as ``256x256 inference fast bf16 cuda compiled``."""
    words = [('compiled' if row[c] else 'eager') if c == 'compiled' else str(row.get(c, '')) for c in columns]
    return ' '.join(filter(None, words))
