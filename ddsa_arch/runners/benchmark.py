"""``ddsa benchmark``: size, cost, latency and memory of networks, each measured in a process of its own."""

from __future__ import annotations

import argparse
import dataclasses
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ddsa_arch.archs.cards import published_scores
from ddsa_arch.benchmarking import report as benchmark_report
from ddsa_arch.benchmarking.networks import Chosen, choose_networks
from ddsa_arch.benchmarking.process import run_row
from ddsa_arch.benchmarking.report import FILES, read_psnr, write_plots, write_tables
from ddsa_arch.benchmarking.row import DTYPES, Job
from ddsa_arch.errors import InputError, did_you_mean

PUBLISHED = 'ddsa_table1'
PUBLISHED_LABEL = 'average PSNR in dB, reported by the DDSA paper'
MEASURED_LABEL = 'PSNR in dB, measured'
MODES = ('inference', 'training')
STEP_MACS = 3  # of a training step over those of its forward pass: the gradients of input and weights cost as much each
SIZE = re.compile(r'([1-9]\d*)x([1-9]\d*)')
COUNTED = ('conv_macs', 'macs', 'flops', 'activations', 'size_note', 'count_note')  # the same for all dtypes
NOTES = ('error', 'size_note', 'count_note', 'memory_note')
EXIT_FAILED = 1  # some rows lack figures
DECIMALS = 4  # of measured figures in the table

Row = dict[str, Any]  # by benchmark_report.COLUMNS
Report = Callable[[int, int, Row], None]  # the number of the row, of how many, the row


@dataclass(frozen=True)
class BenchmarkSummary:
    """The rows that were measured, and where they are written."""

    rows: list[Row]
    failed: list[Row]  # those of them that lack figures; the note says why
    files: list[Path]
    without_psnr: list[str] = field(default_factory=list)  # networks that the plots lack


def benchmark(
    networks: Sequence[str],
    out: str | Path,
    *,
    sizes: Sequence[str] = ('256x256',),
    dtypes: Sequence[str] = ('float32',),
    device: str = 'auto',
    modes: Sequence[str] = ('inference',),
    batch: int = 4,
    compiled: bool = False,
    plain: bool = False,
    keep_memory: bool = True,
    threads: int | None = None,
    warmup: int = 2,
    repeats: int = 10,
    timeout: float = 600.0,
    psnr: str | Path | None = None,
    overwrite: bool = False,
    report: Report | None = None,
) -> BenchmarkSummary:
    """Measure networks, one row for each with each mode, size and dtype, and write the tables after every row.

    Args:
        networks: names of cards or of registered networks, option files, or ``all`` for all cards.
        out: gets ``benchmark.csv``, ``benchmark.md`` and the plots. Made if it is missing.
        sizes: of the image, ``HxW`` in pixels.
        dtypes: keys of ``benchmarking.row.DTYPES``.
        device: ``cpu``, ``cuda``, or ``auto`` for a GPU if there is one.
        modes: ``inference``, ``training``: a step of the optimiser.
        batch: images of a training step.
        compiled: measure each with torch.compile as well.
        plain: measure each in its plain form as well (see ``Job``), in float32, to which the others are compared.
        keep_memory: on the CPU, let freed memory stay with the process.
        threads: on the CPU; None leaves torch's choice.
        warmup: runs before the timed ones.
        repeats: timed runs.
        timeout: seconds for a row.
        psnr: CSV file with columns network and psnr, for the plots; None takes the averages that the paper reports.
        overwrite: replace the benchmark that is in ``out``.
        report: called after every row.

    Returns:
        All rows. One that failed has a note, and does not stop the others.

    Raises:
        InputError: anything of the above that cannot be; nothing is written then.
    """
    chosen = choose_networks(networks)
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    _check(device, dtypes, modes, batch, threads, warmup, repeats, timeout)
    pixels = [parse_size(size) for size in dict.fromkeys(sizes)]
    scores, label = _psnr_of(chosen, psnr)
    out = _prepare(Path(out), overwrite)
    ways = [('plain', 'float32', False)] if plain else []  # form, dtype, compiled
    with_compiler = (False, True) if compiled else (False,)
    ways += [('fast', dtype, way) for dtype in dict.fromkeys(dtypes) for way in with_compiler]
    jobs = [
        (c, Job(c.network_g, c.imports, c.size_multiple, height, width, dtype, mode, form, batch, device, compiled=way,
                threads=threads, warmup=warmup, repeats=repeats, keep_memory=keep_memory, count=True))
        for c in chosen
        for mode in dict.fromkeys(modes)
        for height, width in pixels
        for form, dtype, way in ways
    ]  # fmt: skip
    rows: list[Row] = []
    failed: list[Row] = []
    counts: dict[tuple[str, int, int], dict[str, Any]] = {}
    for number, (network, job) in enumerate(jobs, 1):
        known = counts.get((network.label, job.height, job.width), {})
        figures = known | run_row(dataclasses.replace(job, count=not known), timeout)
        if 'macs' in figures:
            counts[network.label, job.height, job.width] = {k: figures[k] for k in COUNTED if k in figures}
        row = _compared(_row(network, job, figures), job, rows)
        rows.append(row)
        if 'error' in figures:
            failed.append(row)
        if number == 1:  # till then the last benchmark stands
            for name in FILES:
                (out / name).unlink(missing_ok=True)
        write_tables(out, rows, _about(rows, warmup, repeats))
        if report:
            report(number, len(jobs), row)
    files = [out / benchmark_report.TABLE, out / benchmark_report.PAGE, *write_plots(out, rows, scores, label)]
    return BenchmarkSummary(rows, failed, files, [c.label for c in chosen if c.label not in scores])


# --- what is asked for -------------------------------------------------------------------------------------


def parse_size(text: str) -> tuple[int, int]:
    """Read height and width from ``HxW``.

    Raises:
        InputError: another form, or a side of 0.
    """
    found = SIZE.fullmatch(text)
    if not found:
        raise InputError(f'--sizes {text}: wanted HxW in pixels, such as 256x256')
    return int(found[1]), int(found[2])


def _check(
    device: str,
    dtypes: Sequence[str],
    modes: Sequence[str],
    batch: int,
    threads: int | None,
    warmup: int,
    repeats: int,
    timeout: float,
) -> None:
    if device not in ('cpu', 'cuda'):
        raise InputError(f"--device {device}: wanted 'cpu', 'cuda' or 'auto'")
    if device == 'cuda' and not torch.cuda.is_available():
        raise InputError(f'--device cuda: torch {torch.__version__} sees no CUDA GPU; give --device cpu')
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise InputError(f'--dtypes {dtype}: wanted {", ".join(DTYPES)}{did_you_mean(dtype, DTYPES)}')
    for mode in modes:
        if mode not in MODES:
            raise InputError(f'--modes {mode}: wanted {", ".join(MODES)}{did_you_mean(mode, MODES)}')
    numbers = {'batch': (batch, 1), 'threads': (1 if threads is None else threads, 1)}
    numbers |= {'warmup': (warmup, 0), 'repeats': (repeats, 1)}
    for name, (value, least) in numbers.items():
        if value < least:
            raise InputError(f'--{name} {value}: wanted a whole number from {least} up')
    if not timeout > 0:
        raise InputError(f'--timeout {timeout:g}: wanted seconds above 0')


def _psnr_of(chosen: Sequence[Chosen], path: str | Path | None) -> tuple[dict[str, float], str]:
    """Return the PSNR by label, and the name of the plots' axis."""
    if path is None:
        table = published_scores()[PUBLISHED]['rows']
        scores, label = {name: row['average'][0] for name, row in table.items()}, PUBLISHED_LABEL
    else:
        scores, label = read_psnr(path), MEASURED_LABEL
    found = {c.label: scores.get(c.label, scores.get(c.card)) for c in chosen}
    return {name: score for name, score in found.items() if score is not None}, label


def _prepare(out: Path, overwrite: bool) -> Path:
    """Make the folder and check that it can be written.

    Raises:
        InputError: it is not, or holds a benchmark that must not be replaced.
    """
    present = [out / name for name in FILES if (out / name).exists()]
    if present and not overwrite:
        raise InputError(f'{present[0]} is there already; give --overwrite or another folder')
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise InputError(f'-o {out}: no files can be written there ({error.strerror}); give another') from error
    return out


# --- one row -----------------------------------------------------------------------------------------------


def _row(network: Chosen, job: Job, figures: Mapping[str, Any]) -> Row:
    row = {key: value for key, value in figures.items() if key in benchmark_report.COLUMNS}
    row = {key: round(value, DECIMALS) if isinstance(value, float) else value for key, value in row.items()}
    return row | {
        'network': network.label,
        'size': f'{job.height}x{job.width}',
        'mode': f'training, batch {job.batch}' if job.training else job.mode,
        'form': job.form,
        'dtype': job.dtype,
        'device': job.device,
        'device_name': figures.get('device_name') or _processor(),
        'compiled': job.compiled,
        'note': '; '.join(figures[key] for key in NOTES if key in figures),
        'complaints': figures.get('complaints', ''),
    }


def _compared(row: Row, job: Job, earlier: Sequence[Row]) -> Row:
    """Add to a row its share of the machine's ceiling, and its ratio to the plain form, if that was measured."""
    alike = ('network', 'size', 'mode', 'device')
    plain = next((r for r in earlier if r['form'] == 'plain' and all(r[k] == row[k] for k in alike)), {})
    found = {}
    if {'macs', 'latency_ms', 'gemm_gflops'} <= row.keys():
        macs = row['macs'] * job.images * (STEP_MACS if job.training else 1)
        found['gemm_share'] = 2 * macs / (row['latency_ms'] / 1000) / (row['gemm_gflops'] * 1e9)
    for name, key in (('times_plain', 'latency_ms'), ('memory_of_plain', 'peak_memory_mib')):
        if row['form'] != 'plain' and row.get(key) and plain.get(key):
            found[name] = plain[key] / row[key] if key == 'latency_ms' else row[key] / plain[key]
    return row | {name: round(value, DECIMALS) for name, value in found.items()}


def _processor() -> str:
    """Return the name of this machine's processor."""
    try:
        found = re.search(r'^model name\s*:\s*(.+)$', Path('/proc/cpuinfo').read_text(encoding='utf-8'), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _about(rows: Sequence[Row], warmup: int, repeats: int) -> str:
    devices = ', '.join(dict.fromkeys(f'{row["device"]} ({row["device_name"]})' for row in rows))
    threads = ', '.join(dict.fromkeys(str(row['threads']) for row in rows if row.get('threads'))) or 'unknown'
    return (
        f'torch {torch.__version__}, Python {platform.python_version()}, {platform.system()}; {devices}, '
        f'threads on the CPU: {threads}; {warmup} runs to warm up, {repeats} timed.'
    )


# --- command -----------------------------------------------------------------------------------------------


def row_text(row: Row) -> str:
    """Return a row as text, such as ``PReNet 256x256 float32 cpu: 812.40 ms, 63.1 MiB``."""
    words = [row['network'], row['size'], row['dtype'], row['device']]
    words += [row['mode']] if row['mode'] != 'inference' else []
    words += ['plain form'] if row['form'] == 'plain' else []
    words += ['compiled'] if row['compiled'] else []
    figures = [
        f'{row[key]:.2f} {unit}' for key, unit in (('latency_ms', 'ms'), ('peak_memory_mib', 'MiB')) if key in row
    ]
    figures += [f'{row["times_plain"]:.2f} times as fast as the plain form'] if 'times_plain' in row else []
    return f'{" ".join(words)}: {", ".join([*figures, *filter(None, [row["note"]])])}'


def _print_row(number: int, total: int, row: Row) -> None:
    if row['complaints']:
        print(row['complaints'], file=sys.stderr, end='')
    print(f'[{number}/{total}] {row_text(row)}', flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='ddsa benchmark', description=__doc__)
    parser.add_argument(
        'networks', nargs='+', metavar='NETWORK', help='a name of `ddsa networks`, an option file, or all'
    )
    parser.add_argument(
        '-o', '--out', default='benchmark', metavar='DIR', help='gets the tables and the plots (benchmark)'
    )
    parser.add_argument('--sizes', nargs='+', default=['256x256'], metavar='HxW', help='of the image (256x256)')
    parser.add_argument(
        '--dtypes', nargs='+', default=['float32'], metavar='DTYPE', help='float32, tf32, bf16, fp16 (float32)'
    )
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda (auto)')
    parser.add_argument(
        '--modes', nargs='+', default=['inference'], metavar='MODE', help='inference, training: one step (inference)'
    )
    parser.add_argument('--batch', type=int, default=4, metavar='N', help='images of a training step (4)')
    parser.add_argument(
        '--plain', action='store_true', help="measure each in the papers' order of operations as well, and compare"
    )
    parser.add_argument('--no-keep-memory', action='store_true', help="leave the C library's allocator as it is")
    parser.add_argument('--compile', action='store_true', help='measure each with torch.compile as well')
    parser.add_argument('--threads', type=int, metavar='N', help="on the CPU (torch's choice)")
    parser.add_argument('--warmup', type=int, default=2, metavar='N', help='runs before the timed ones (2)')
    parser.add_argument('--repeats', type=int, default=10, metavar='N', help='timed runs (10)')
    parser.add_argument('--timeout', type=float, default=600.0, metavar='SECONDS', help='for each row (600)')
    parser.add_argument(
        '--psnr', metavar='FILE', help='CSV file (network,psnr) for the plots; otherwise the averages of the paper'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace the benchmark that is in DIR')
    args = parser.parse_args(argv)
    summary = benchmark(
        args.networks, args.out, sizes=args.sizes, dtypes=args.dtypes, device=args.device, modes=args.modes,
        batch=args.batch, compiled=args.compile, plain=args.plain, keep_memory=not args.no_keep_memory,
        threads=args.threads, warmup=args.warmup, repeats=args.repeats, timeout=args.timeout, psnr=args.psnr,
        overwrite=args.overwrite, report=_print_row,
    )  # fmt: skip
    if summary.without_psnr:
        missing = '; '.join(summary.without_psnr)
        if any(path.suffix == '.png' for path in summary.files):
            print(f'no PSNR known, not in the plots: {missing}')
        else:
            print(f'no plots, as no PSNR is known: {missing}')
    for row in summary.failed:
        print(f'failed: {row_text(row)}')
    print('\n'.join(str(path) for path in summary.files))
    return EXIT_FAILED if summary.failed else 0
