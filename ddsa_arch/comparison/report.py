"""The tables of ``ddsa compare``: measured and reported rows, each image, paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddsa_arch.archs.cards import REPORTED, printed_digits, provenance, published_scores
from ddsa_arch.comparison.runs import RAINY, Method
from ddsa_arch.comparison.scores import SCORES
from ddsa_arch.comparison.scoring import WITH_TARGET, WITHOUT_TARGET, SetScores, used_metrics
from ddsa_arch.comparison.significance import PairedDifference, paired_difference
from ddsa_arch.comparison.tables import (
    AVERAGE,
    Row,
    Table,
    ablation_table,
    methods_table,
    sets_table,
    with_average,
)
from ddsa_arch.errors import InputError
from ddsa_arch.files.tables import finite_mean, write_csv
from ddsa_arch.options.parts import part_parameters
from ddsa_arch.sets.benchmarks import TEST_SETS, scene_of

REPORTED_TABLES = {'table1': 'ddsa_table1', 'table2': 'ddsa_table2', 'table3': 'ddsa_table3'}
REPORTED_AVERAGE = 'average'  # as published.yml calls it
ABLATION_PARTS = ('DSA', 'SSA', 'GDFN', 'MSFN', 'SA')


@dataclass(frozen=True)
class Difference:
    """One method against the reference, by one score of one set."""

    method: str
    reference: str
    set: str
    score: str
    found: PairedDifference


# --- tables --------------------------------------------------------------------------------------------------


def rows(methods: Sequence[Method], scored: Sequence[SetScores], layout: str) -> list[Row]:
    """Return rows for the measured methods, then for those that the paper's table of this layout reports."""
    names = {one.compared.name: one.metrics for one in scored}
    if layout == 'table1':
        names = {benchmark.name: WITH_TARGET for benchmark in TEST_SETS}
    scores = list(dict.fromkeys(metric for metrics in names.values() for metric in metrics))
    found = []
    for method in methods:
        means = {one.compared.name: {m: one.mean(method.name, m) for m in one.metrics} for one in scored}
        found.append(Row(method.name, with_average(means, list(names), scores), switches=_switches(method)))
    if layout in REPORTED_TABLES:
        found += _reported(published_scores()[REPORTED_TABLES[layout]], layout)
    return found


def _kinds(layout: str) -> tuple[str, str]:
    """Return the names of the scores that a layout's reported rows have."""
    return WITHOUT_TARGET if layout == 'table2' else WITH_TARGET


def _reported(table: Mapping[str, Any], layout: str) -> list[Row]:
    kinds = _kinds(layout)
    digits = dict(zip(kinds, printed_digits(table), strict=True))
    found = []
    for name, of in table['rows'].items():
        origin = provenance(table, name)
        means = {(AVERAGE if s == REPORTED_AVERAGE else s): dict(zip(kinds, v, strict=True)) for s, v in of.items()}
        switches = None
        if layout == 'table3':  # such as `(a) DSA + MSFN + SA`
            name, _, parts = name.partition(' ')
            switches = {part: part in parts.split(' + ') for part in ABLATION_PARTS}
        found.append(Row(name, means, REPORTED, digits, switches, origin))
    return found


def _switches(method: Method) -> dict[str, bool] | None:
    """Return which parts of the ablation a tested DDSANet has."""
    network = (method.protocol or {}).get('network') or {}
    if network.get('type') != 'DDSANet':
        return None
    defaults = {name: p.default for name, p in part_parameters('arch', 'DDSANet')[0].items()}
    network = {**defaults, **network}
    attention, gdfn = network['attention'], network['ffn'] == 'gdfn'
    return {
        'DSA': attention in ('dual', 'dense'),
        'SSA': attention in ('dual', 'sparse'),
        'GDFN': gdfn,
        'MSFN': not gdfn,
        'SA': network['spatial_attention'],
    }


def main_table(found: Sequence[Row], scored: Sequence[SetScores], layout: str, protocol: str) -> tuple[Table, str]:
    """Return the table of a layout, and the notes below it."""
    columns = {one.compared.name: one.metrics for one in scored}
    reported_sets = {'table1': [b.name for b in TEST_SETS], 'table2': ['real'], 'table3': ['Rain100H']}.get(layout, [])
    kinds = _kinds(layout)
    if layout != 'sets' and not any(set(kinds) & set(metrics) for metrics in columns.values()):
        labels = ' and '.join(SCORES[kind].label for kind in kinds)
        wanted = ' '.join(kinds)
        raise InputError(f'--{layout} is a table of {labels}, and no run was scored so; give --metrics {wanted}')
    columns = {**dict.fromkeys(reported_sets, kinds), **columns}
    if len(columns) > 1 and layout in ('sets', 'table1'):
        shared = tuple(m for m in SCORES if all(m in metrics for metrics in columns.values()))
        columns |= {AVERAGE: shared} if shared else {}
    caption = _caption(scored, protocol, AVERAGE in columns)
    if layout == 'table2':
        return methods_table(found, list(columns.items())), caption
    if layout == 'table3':
        return ablation_table(found, list(columns.items()), ABLATION_PARTS), caption
    return sets_table(found, list(columns.items())), caption


def _caption(scored: Sequence[SetScores], protocol: str, averaged: bool) -> str:
    metrics = used_metrics(scored)
    parts = []
    if set(WITH_TARGET) & set(metrics):
        rounding = {'paper': 'rounded', 'basicsr': 'not rounded'}[protocol]
        parts.append(f'PSNR and SSIM on Y of BT.601, {rounding} (protocol {protocol}), whole images of 8 bits')
    if set(WITHOUT_TARGET) & set(metrics):
        parts.append("NIQE and BRISQUE by their authors' formulas, no resizing, lower is better")
    lines = ['; '.join(parts)]
    if averaged:
        lines.append('Average: mean of the set means')
    return '. '.join(lines) + '.'


def reported_note(layout: str) -> str:
    """Tell where the reported rows of a layout come from; '' where there are none."""
    if layout not in REPORTED_TABLES:
        return ''
    return f' Reported rows: {published_scores()[REPORTED_TABLES[layout]]["title"]}, not measured here.'


def write_means(path: Path, found: Sequence[Row], scored: Sequence[SetScores]) -> None:
    """Write a row for each method: the average of each score, then the mean of each set."""
    metrics = used_metrics(scored)
    sets = list(dict.fromkeys(name for row in found for name in row.means if name != AVERAGE))
    table = []
    for row in found:
        cells: dict[str, Any] = {'network': row.name, 'source': row.kind, 'provenance': row.provenance}
        cells |= {m: _cell(row.value(AVERAGE, m)) for m in metrics}
        cells |= {f'{name}_{m}': _cell(row.value(name, m)) for name in sets for m in metrics}
        table.append(cells)
    write_csv(
        path, table, ['network', 'source', 'provenance', *metrics, *(f'{name}_{m}' for name in sets for m in metrics)]
    )


def write_images(path: Path, scored: Sequence[SetScores]) -> None:
    """Write a row for each image of each method."""
    metrics = used_metrics(scored)
    table = [
        {
            'set': one.compared.name,
            'image': stem,
            'network': name,
            **{m: values[m][place] for m in one.metrics},
            'note': one.notes[name][place],
        }
        for one in scored
        for name, values in one.values.items()
        for place, stem in enumerate(one.compared.stems)
    ]
    write_csv(path, table, ['set', 'image', 'network', *metrics, 'note'])


def _cell(value: float) -> float | str:
    return value if math.isfinite(value) else ''


def run_means(one: SetScores, method: str, metric: str) -> list[float]:
    """Return the mean score of each run of a method, over the images that have a finite one in all of them.

    Of the rainy images, which nobody trained, there are no runs.
    """
    if method == RAINY:
        return []
    finite = np.isfinite(one.values[method][metric])
    return [finite_mean(np.asarray(run[metric])[finite]) for run in one.runs[method]]


def write_runs(path: Path, scored: Sequence[SetScores]) -> None:
    """Write a row for each run and set."""
    metrics = used_metrics(scored)
    table = [
        {
            'network': method.name,
            'run': str(run.path),
            'set': one.compared.name,
            **{m: _cell(finite_mean(values[m])) for m in one.metrics},
        }
        for one in scored
        for method in one.compared.methods.values()
        for run, values in zip(method.runs, one.runs[method.name], strict=True)
    ]
    write_csv(path, table, ['network', 'run', 'set', *metrics])


# --- differences ---------------------------------------------------------------------------------------------


def differences(scored: Sequence[SetScores], reference: str) -> list[Difference]:
    """Compare each method with the reference, image by image; without targets the rainy images take part too."""
    found = []
    for one in scored:
        name = one.compared.name
        if reference not in one.values:
            continue
        scenes = [scene_of(name, stem) for stem in one.compared.stems]
        for method, values in one.values.items():
            if method == reference or (method == RAINY and one.compared.targets):
                continue  # that rain lowers PSNR is no finding
            for metric in one.metrics:
                of = paired_difference(
                    values[metric], one.values[reference][metric], SCORES[metric].higher_is_better, scenes,
                    (method, reference), (run_means(one, method, metric), run_means(one, reference, metric)),
                )  # fmt: skip
                found.append(Difference(method, reference, name, metric, of))
    return found


def write_differences(path: Path, found: Sequence[Difference]) -> None:
    """Write a row for each method, set and score; means are those of method minus reference."""
    table = [
        {'network': d.method, 'reference': d.reference, 'set': d.set, 'score': d.score, **asdict(d.found)}
        for d in found
    ]
    fields = list(PairedDifference.__dataclass_fields__)
    write_csv(path, table, ['network', 'reference', 'set', 'score', *fields])
