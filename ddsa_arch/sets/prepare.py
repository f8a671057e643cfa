"""``ddsa data prepare``: from the downloaded archives or folders to verified LMDBs, in one command."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

from tqdm import tqdm

from ddsa_arch.errors import InputError, did_you_mean
from ddsa_arch.files.lmdb_store import read_entries, value_sizes
from ddsa_arch.files.matching import SIDES, Pairs
from ddsa_arch.files.name_rules import STEM
from ddsa_arch.files.tables import markdown_table, write_csv
from ddsa_arch.sets.benchmarks import BENCHMARKS
from ddsa_arch.sets.layouts import FoundSet, find_sets
from ddsa_arch.sets.pair_stores import pair_is_usable, write_pair_stores
from ddsa_arch.sets.published import names
from ddsa_arch.sets.verify import pair_problems, source_problems, store_problems

MEBIBYTE = 1 << 20
TABLE_NAME = 'prepared.csv'
COLUMNS = ('set', 'source', 'pairs', 'expected', 'sizes', 'MiB', 'seconds', 'result')


@dataclass
class Prepared:
    """The outcome for one set: a row of the table, and a sentence for each thing left out or doubtful."""

    row: dict[str, object]
    notes: list[str]


def prepare(
    root: str | Path,
    out: str | Path = 'datasets',
    sets: Sequence[str] = (),
    skip_bad: bool = False,
    any_count: bool = False,
    report: Callable[[str], None] = lambda text: None,
    progress: bool = False,
) -> list[Prepared]:
    """Make ``out/SET/input.lmdb`` and ``out/SET/target.lmdb`` for every set of the field under ``root``.

    Stores that are there already are verified against themselves and their source, and left as they are. An error in
    one set does not keep the others from being made.

    Args:
        root: a folder, or a zip archive; see ``sets.layouts``.
        out: folder of the sets, and of ``prepared.csv``.
        sets: names of ``BENCHMARKS``; default: all that are found.
        skip_bad: leave out what is wrong instead of raising, and take what is left.
        any_count: take a set that has not the expected number of pairs.
        report: gets lines for a person, as they come.
        progress: show bars.

    Raises:
        InputError: naming all that is wrong in all sets, each with its remedy. The other sets are made.
    """
    for name in sets:
        if name not in (known := [*BENCHMARKS, *names()]):
            raise InputError(f'--sets: no set {name!r}{did_you_mean(name, known)}')
    found, passed_over = find_sets(root)
    absent = [name for name in sets if name not in found]
    if absent:
        raise InputError(f'--sets: {", ".join(absent)} not in {root}; found: {", ".join(found)}')
    for place in passed_over:
        report(f'passed over {place}')
    made, problems = [], []
    for name, source in found.items():
        if sets and name not in sets:
            continue
        report(f'{name}: {source.place}')
        bar = partial(tqdm, unit='pair', desc=name, disable=None if progress else True)
        try:
            made.append(_prepare_set(source, Path(out) / name, skip_bad, any_count, report, bar))
        except InputError as error:
            problems.append(f'{name}: {error}')
            made.append(Prepared(_row(source, {'result': 'not made'}), []))
    if any(prepared.row['result'] != 'not made' for prepared in made):
        write_csv(Path(out) / TABLE_NAME, [prepared.row for prepared in made], COLUMNS)
    report(markdown_table([[prepared.row[c] for c in COLUMNS] for prepared in made], COLUMNS))
    for prepared in made:
        for note in prepared.notes:
            report(f'{prepared.row["set"]}: {note}')
    if problems:
        raise InputError('\n'.join(problems))
    return made


def _prepare_set(
    source: FoundSet,
    out: Path,
    skip_bad: bool,
    any_count: bool,
    report: Callable[[str], None],
    bar: Callable[[Iterable], Iterable],
) -> Prepared:
    benchmark = source.benchmark
    start = time.perf_counter()
    pairs = source.pairs()
    wanted = benchmark.pairs or len(pairs.inputs)
    surplus = len(pairs.inputs) - wanted
    notes: list[str] = []
    if pairs.rule != STEM:
        report(f'matched by: {pairs.rule}, {pairs.told}')
    for file in pairs.passed_over:
        report(f'passed over {file}')
    stores = [out / f'{side}.lmdb' for side in SIDES]
    if all(store.is_dir() for store in stores):
        _verify_set(pairs, stores, bar)
        result = 'verified, was there'
    else:
        # what is wrong with the files goes before a wrong count, which may follow from it
        if not (0 <= surplus <= benchmark.surplus or skip_bad or any_count or pairs.problems):
            raise InputError(
                f'{len(pairs.inputs)} pairs in {source.place}, expected {benchmark.pairs}; download or unpack it '
                'again, or take it as it is with --any-count'
            )
        _, notes = write_pair_stores(pairs, out, bar, skip_bad, min(max(surplus, 0), benchmark.surplus))
        result = 'made'
    sizes = [entry.shape[1::-1] for entry in read_entries(stores[0]).values()]
    smallest, largest = (' x '.join(map(str, size)) for size in (min(sizes, key=prod), max(sizes, key=prod)))
    stored = sum((store / 'data.mdb').stat().st_size for store in stores)
    if len(sizes) != wanted:
        result += f'; {abs(len(sizes) - wanted)} pairs too {"few" if len(sizes) < wanted else "many"}'
    measured = {
        'pairs': len(sizes),
        'sizes': smallest if smallest == largest else f'{smallest} to {largest}',
        'MiB': f'{stored / MEBIBYTE:.1f}',
        'seconds': f'{time.perf_counter() - start:.1f}',
        'result': result,
    }
    return Prepared(_row(source, measured), notes)


def _row(source: FoundSet, more: Mapping[str, object]) -> dict[str, object]:
    known = {'set': source.benchmark.name, 'source': source.place, 'expected': source.benchmark.pairs or ''}
    return {**dict.fromkeys(COLUMNS, ''), **known, **more}


def _verify_set(pairs: Pairs, stores: Sequence[Path], bar: Callable[[Iterable], Iterable]) -> None:
    """Check a set that is there: sound by itself, made of these files, and whole but for pairs that are broken."""
    problems = pair_problems(stores[0], stores[1])
    for store, side in zip(stores, (pairs.inputs, pairs.targets), strict=True):
        problems += store_problems(store, bar) or source_problems(store, side)
    if not problems:
        stored = value_sizes(stores[0])
        problems += [
            f'{stores[0]}: {stem!r} is missing, and its files are sound'
            for stem in pairs.inputs
            if stem not in stored and pair_is_usable(stem, pairs.inputs[stem], pairs.targets[pairs.target_of(stem)])
        ]
    if problems:
        raise InputError(
            f'{stores[0].parent} is there, and wrong:\n  ' + '\n  '.join(problems) + '\nDelete it to make it again, '
            'or give another --out'
        )
