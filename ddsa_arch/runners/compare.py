"""``ddsa compare``: several methods on the same images: tables, paired differences, and a gallery to look at."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ddsa_arch.comparison import page as wording
from ddsa_arch.comparison import report as report
from ddsa_arch.comparison.gallery.build import GalleryImage, write_gallery
from ddsa_arch.comparison.runs import (
    RAINY,
    Method,
    common_sets,
    compared_set,
    find_sources,
    name_as_images,
    read_methods,
)
from ddsa_arch.comparison.scores import SCORES
from ddsa_arch.comparison.scoring import SetScores, score_set, used_metrics
from ddsa_arch.comparison.tables import to_latex, to_markdown
from ddsa_arch.errors import InputError, did_you_mean
from ddsa_arch.files.atomic import atomic_folder, sweep, write_json, write_text
from ddsa_arch.files.images import natural_key
from ddsa_arch.files.locks import only_writer
from ddsa_arch.models.protocol import versions
from ddsa_arch.ops.quality import PROTOCOLS
from ddsa_arch.sets.benchmarks import TEST_SETS

PAGE, MARKDOWN = 'gallery.html', 'comparison.md'
TARGET = 'Target'
GALLERY_IMAGES = 100  # on one page


@dataclass(frozen=True)
class Comparison:
    """The result of ``compare``.

    Args:
        folder: where its files lie.
        methods: in the order shown.
        sets: the scores of each set.
        table: the main table, as Markdown.
        warnings: what a reader of the figures should know.
    """

    folder: Path
    methods: Sequence[Method]
    sets: Sequence[SetScores]
    table: str
    warnings: Sequence[str]


def compare(
    runs: Sequence[str],
    out: str | Path,
    *,
    targets: Sequence[str] = (),
    inputs: Sequence[str] = (),
    metrics: Sequence[str] | None = None,
    protocol: str = 'paper',
    layout: str = 'sets',
    reference: str | None = None,
    allow_missing: bool = False,
    gallery_images: int = GALLERY_IMAGES,
    threads: int | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Comparison:
    """Compare methods by images that lie on the disk, all scored anew by one protocol.

    Args:
        runs: ``[NAME=]FOLDER``: what ``ddsa test`` wrote, or images (of one set, or in a folder for each set). Several
            of one NAME are runs of one method, such as trainings with other seeds: its scores are their means.
        out: gets comparison.md, .csv and .tex, images.csv, differences.csv, protocol.json and gallery.html.
        targets: ``[SET=]FOLDER`` or LMDB of clean images; by default those that the runs were tested with.
        inputs: likewise of rainy images, which are then a row of their own.
        metrics: ``psnr``, ``ssim``, ``niqe``, ``brisque``; by default the first two, or the others without targets.
        protocol: of PSNR and SSIM, ``paper`` or ``basicsr``.
        layout: ``sets``; ``table1``, ``table2`` or ``table3`` take the shape of that table of the paper, and add the
            scores that it reports.
        reference: the method whose differences from the others are looked at; by default the first.
        allow_missing: compare on the images that all methods have, where some lack some.
        gallery_images: how many images the page shows, shared among the sets and spread evenly; 0 for no page.
        threads: images scored at once; by default as many as there are processors.
        overwrite: replace an earlier comparison in ``out``.
        progress: show bars.

    Raises:
        InputError: what the user can mend; nothing is written then.
    """
    out = Path(out)
    for flag, value, least in (('--gallery', gallery_images, 0), ('--threads', threads, 1)):
        if value is not None and value < least:
            raise InputError(f'{flag} {value}: wanted {least} or more')
    with only_writer(out, 'name another folder with -o'):
        sweep(out.parent, out.name)
        _check_out(out, overwrite)
        return _compare(
            runs, out, targets, inputs, metrics, protocol, layout, reference, allow_missing, gallery_images, threads,
            progress,
        )  # fmt: skip


def _compare(
    runs: Sequence[str],
    out: Path,
    targets: Sequence[str],
    inputs: Sequence[str],
    metrics: Sequence[str] | None,
    protocol: str,
    layout: str,
    reference: str | None,
    allow_missing: bool,
    gallery_images: int,
    threads: int | None,
    progress: bool,
) -> Comparison:
    methods = read_methods(runs)
    names = common_sets(methods)
    clean = find_sources(targets, methods, 'dataroot_gt', '--target', names)
    rainy = find_sources(inputs, methods, 'dataroot_lq', '--input', names)
    told = [name_as_images(source, methods, name) for side in (clean, rainy) for name, source in side.items()]
    if rainy and RAINY not in [method.name for method in methods]:
        methods = [Method(RAINY, Path(next(iter(rainy.values())).root), dict(rainy)), *methods]
    candidates = [method.name for method in methods]
    reference = reference or next((name for name in candidates if name != RAINY), RAINY)
    if reference not in candidates:
        raise InputError(f'--reference {reference}: no such run{did_you_mean(reference, candidates)}')
    compared = [compared_set(name, methods, clean.get(name), allow_missing) for name in _in_order(names)]
    scored = [score_set(one, metrics, protocol, threads or _processors(), progress) for one in compared]
    warnings = (
        [*filter(None, told)]
        + [w for one in scored for w in one.warnings]
        + wording.protocol_warnings(methods, protocol)
    )
    rows = report.rows(methods, scored, layout)
    table, caption = report.main_table(rows, scored, layout, protocol)
    differences = report.differences(scored, reference)
    with atomic_folder(out) as folder:
        write_text(folder / 'comparison.tex', to_latex(table, caption + report.reported_note(layout)))
        report.write_means(folder / 'comparison.csv', rows, scored)
        report.write_images(folder / 'images.csv', scored)
        report.write_differences(folder / 'differences.csv', differences)
        if any(method.repeats for method in methods):
            report.write_runs(folder / 'runs.csv', scored)
        write_json(folder / 'protocol.json', wording.protocol_record(methods, scored, protocol, versions()))
        page = wording.page(table, caption, methods, scored, differences, reference, warnings, layout)
        write_text(folder / MARKDOWN, page)
        if gallery_images:
            remarks = wording.remarks(caption, warnings, methods, differences)
            _write_page(folder / PAGE, methods, scored, remarks, gallery_images, progress)
    return Comparison(out, methods, scored, to_markdown(table), warnings)


def _processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _check_out(out: Path, overwrite: bool) -> None:
    """Check the folder: only what an earlier comparison has written is ever replaced."""
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / MARKDOWN).is_file()):
        raise InputError(f'{out} is there and holds something else than a comparison; name another folder with -o')
    if any(out.iterdir()) and not overwrite:
        raise InputError(f'{out} holds a comparison already; give --overwrite, or another folder with -o')


def _in_order(names: Iterable[str]) -> list[str]:
    """Sort sets: the benchmarks in the order of the field's tables, then others by name."""
    known = [benchmark.name for benchmark in TEST_SETS]
    return sorted(names, key=lambda n: (known.index(n) if n in known else len(known), natural_key(n)))


def _write_page(
    path: Path,
    methods: Sequence[Method],
    scored: Sequence[SetScores],
    remarks: Sequence[str],
    most: int,
    progress: bool,
) -> None:
    """Write the gallery of the methods that have images."""
    shown = [m.name for m in methods if m.images]
    has_targets = any(one.compared.targets for one in scored)
    used = used_metrics(scored)
    share = max(1, most // len(scored))
    chosen = {one.compared.name: _spread(len(one.compared.stems), share) for one in scored}
    cut = [
        f'{name}: {len(places)} of {len(one.compared.stems)} images, evenly spread; all are scored.'
        for one, (name, places) in zip(scored, chosen.items(), strict=True)
        if len(places) < len(one.compared.stems)
    ]
    images = (image for one in scored for image in _gallery_images(one, shown, chosen[one.compared.name]))
    count = sum(map(len, chosen.values()))
    write_gallery(
        path,
        'Comparison on ' + ', '.join(one.compared.name for one in scored),
        [*shown, TARGET] if has_targets else shown,
        [SCORES[name] for name in used],
        tqdm(images, total=count, desc='pictures', unit='image', disable=None if progress else True),
        target=TARGET if has_targets else None,
        remarks=[*remarks, *cut],
        scored={one.compared.name: _values(one, shown, used, has_targets) for one in scored},
    )


def _values(one: SetScores, shown: Sequence[str], metrics: Sequence[str], has_targets: bool) -> list[list[list[float]]]:
    """Return the scores for each image and method, the target last; NaN where there is none."""
    nothing = [math.nan] * len(one.compared.stems)
    columns = [[_of_pictures(one, name).get(metric, nothing) for metric in metrics] for name in shown]
    columns += [[nothing] * len(metrics)] * has_targets
    return [[[of[place] for of in method] for method in columns] for place in range(len(one.compared.stems))]


def _of_pictures(one: SetScores, method: str) -> Mapping[str, Sequence[float]]:
    """Return the scores of the pictures that the page shows, which are of a method's first run; none of other sets."""
    runs = one.runs.get(method)
    return runs[0] if runs else {}


def _spread(count: int, most: int) -> list[int]:
    """Choose at most so many places out of ``count``, evenly spread."""
    kept = min(count, most)
    return [place * count // kept for place in range(kept)]


def _gallery_images(one: SetScores, shown: Sequence[str], places: Sequence[int]) -> Iterator[GalleryImage]:
    compared = one.compared
    for place in places:
        stem = compared.stems[place]
        pictures = {
            name: method.read(compared.name, stem)
            for name, method in compared.methods.items()
            if compared.name in method.images
        }
        if compared.targets:
            pictures[TARGET] = compared.targets.read(stem)
        scores = {name: {m: of[m][place] for m in one.metrics} for name in shown if (of := _of_pictures(one, name))}
        notes = {name: of[place] for name, of in one.notes.items() if of[place] and name in shown}
        yield GalleryImage(compared.name, stem, pictures, scores, notes)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='ddsa compare', description=__doc__)
    parser.add_argument(
        'runs',
        nargs='+',
        metavar='[NAME=]RUN',
        help='results/NAME of a test, or a folder of images; several of one NAME: seeds of one method',
    )
    parser.add_argument('-o', '--out', default='comparison', metavar='DIR', help='gets the files (comparison)')
    parser.add_argument(
        '--target',
        action='append',
        default=[],
        metavar='[SET=]DIR',
        help='clean images (those that the runs name); once for each set',
    )
    parser.add_argument('--input', action='append', default=[], metavar='[SET=]DIR', help='rainy images, likewise')
    parser.add_argument('--metrics', nargs='+', metavar='NAME', help='psnr, ssim, niqe, brisque')
    parser.add_argument('--protocol', choices=PROTOCOLS, default='paper', help='of PSNR and SSIM (paper)')
    layouts = parser.add_mutually_exclusive_group()
    for number, what in ((1, 'the five sets'), (2, 'real photos'), (3, 'the ablation')):
        layouts.add_argument(
            f'--table{number}', dest='layout', action='store_const', const=f'table{number}', default='sets',
            help=f'in the shape of table {number} of the paper, {what}, beside the scores that it reports',
        )  # fmt: skip
    parser.add_argument('--reference', metavar='NAME', help='the run whose differences are looked at (the first)')
    parser.add_argument('--allow-missing', action='store_true', help='compare on the images that all runs have')
    parser.add_argument(
        '--gallery',
        type=int,
        default=GALLERY_IMAGES,
        metavar='N',
        help=f'images on the page, 0 for none ({GALLERY_IMAGES})',
    )
    parser.add_argument('--threads', type=int, metavar='N', help='images scored at once (all processors)')
    parser.add_argument('--overwrite', action='store_true', help='replace an earlier comparison')
    args = parser.parse_args(argv)
    result = compare(
        args.runs,
        args.out,
        targets=args.target,
        inputs=args.input,
        metrics=args.metrics,
        protocol=args.protocol,
        layout=args.layout,
        reference=args.reference,
        allow_missing=args.allow_missing,
        gallery_images=args.gallery,
        threads=args.threads,
        overwrite=args.overwrite,
        progress=True,
    )
    print(result.table)
    print('\n'.join(f'note: {warning}' for warning in result.warnings), end='\n' if result.warnings else '')
    print(f'tables: {result.folder / MARKDOWN} (.csv, .tex), images.csv, differences.csv')
    if args.gallery:
        print(f'pictures: {result.folder / PAGE}')
    return 0
