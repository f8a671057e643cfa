"""The texts of ``ddsa compare``: the page comparison.md, the lines above the gallery, the protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddsa_arch.archs.cards import describe_provenance, published_scores
from ddsa_arch.comparison.report import REPORTED_TABLES, Difference, run_means
from ddsa_arch.comparison.runs import Method
from ddsa_arch.comparison.scores import SCORES
from ddsa_arch.comparison.scoring import SetScores
from ddsa_arch.comparison.significance import CONFIDENCE
from ddsa_arch.comparison.tables import LEGEND, NO_VALUE, Table, to_markdown
from ddsa_arch.files.tables import markdown_table
from ddsa_arch.models.protocol import describe_protocol

MOST_NOTES = 20  # images that the page names one by one


def page(
    table: Table,
    caption: str,
    methods: Sequence[Method],
    scored: Sequence[SetScores],
    found: Sequence[Difference],
    reference: str,
    warnings: Sequence[str],
    layout: str,
) -> str:
    """Return the text of comparison.md."""
    parts = ['# Comparison', '', to_markdown(table), '', LEGEND, caption, '']
    if layout in REPORTED_TABLES:
        parts += [_about_reported(published_scores()[REPORTED_TABLES[layout]]), '']
    if warnings:
        parts += ['## Notes', '', *(f'* {warning}' for warning in warnings), '']
    if found:
        interval = f'{100 * CONFIDENCE:.0f} % interval'
        header = ['method', 'set', 'score', 'difference', interval, 'better / equal / worse', 'p', 'verdict']
        parts += [
            f'## Differences from {reference}',
            '',
            markdown_table([_difference_row(d) for d in found], header),
            '',
            f'Method less {reference} on the same images: mean with its interval (bootstrap over images; with several '
            "runs of a method Student's over images and runs), in how many images the method is the better one, and "
            'the two-sided sign test. Several rains on one photo count as one image.',
            '',
        ]
    spread = [row for method in methods if method.repeats for row in _spread_rows(method, scored)]
    if spread:
        header = ['method', 'runs', 'set', 'score', 'mean', 'standard deviation', 'lowest', 'highest']
        parts += ['## Spread over runs', '', markdown_table(spread, header), '', 'Of the means of the runs.', '']
    parts += [
        '## Runs',
        '',
        markdown_table([_run_row(run) for m in methods for run in m.runs], ['name', 'folder', 'tested with']),
        '',
    ]
    notes = [
        f'* {one.compared.name}, {stem}, {name}: {of[place]}'
        for one in scored
        for name, of in one.notes.items()
        for place, stem in enumerate(one.compared.stems)
        if of[place]
    ]
    if notes:
        more = [f'* and {len(notes) - MOST_NOTES} more, see images.csv'] if len(notes) > MOST_NOTES else []
        parts += ['## Images that count less or not at all', '', *notes[:MOST_NOTES], *more, '']
    return '\n'.join(parts)


def remarks(caption: str, warnings: Sequence[str], methods: Sequence[Method], found: Sequence[Difference]) -> list[str]:
    """Return the lines above the gallery: protocol, warnings, differences by the first score, runs."""
    lines = [caption, *warnings]
    first: dict[str, str] = {}  # score of each set
    for d in found:
        first.setdefault(d.set, d.score)
    for d in [d for d in found if d.score == first[d.set]][:MOST_NOTES]:
        method, set_name, label, mean, interval, *_, verdict = _difference_row(d)
        lines.append(f'{method} less {d.reference}, {set_name}: {label} {mean} ({interval}): {verdict}.')
    lines += [f'{m.name}: pictures and their scores are those of {m.path}.' for m in methods if m.repeats]
    tested = [_run_row(m) for m in methods if m.protocol]
    return lines + [f'{name}: {how}.' for name, _, how in tested]


def _about_reported(table: Mapping[str, Any]) -> str:
    return (
        f'Reported rows: [{table["title"]}]({table["url"]}); trained on {table["training"]}; {table["metric"]}; '
        f'{describe_provenance(table)}. They were not measured here.'
    )


def _spread_rows(method: Method, scored: Sequence[SetScores]) -> list[list[str]]:
    found = []
    for one in scored:
        if method.name not in one.runs:
            continue
        for metric in one.metrics:
            means = run_means(one, method.name, metric)
            figures = (np.mean(means), np.std(means, ddof=1), np.min(means), np.max(means))
            texts = [f'{f:.{SCORES[metric].digits + 1}f}' if math.isfinite(f) else NO_VALUE for f in figures]
            found.append([method.name, str(len(means)), one.compared.name, SCORES[metric].label, *texts])
    return found


def _run_row(method: Method) -> list[str]:
    protocol = method.protocol or {}
    network = (protocol.get('network') or {}).get('type')
    how = f'{network}: {describe_protocol(protocol, method.scores)}' if network else 'images'
    return [method.name, str(method.path), how]


def protocol_warnings(methods: Sequence[Method], protocol: str) -> list[str]:
    """Warn where tested runs made their images in different ways, or stored other scores in their own files."""
    runs = [run for method in methods for run in method.runs]
    roundings = {(run.name, run.protocol['rounding']): None for run in runs if run.protocol}  # each once
    rounded = [name for name, rounding in roundings if rounding == 'round']
    cut = [name for name, rounding in roundings if rounding != 'round']
    found = []
    if rounded and cut:
        found.append(
            f'outputs of {", ".join(cut)} were truncated to 8 bits, those of {", ".join(rounded)} rounded, '
            'which is worth up to 0.2 dB'
        )
    other = dict.fromkeys(
        run.name for run in runs if any(of.get('protocol', protocol) != protocol for of in _target_metrics(run))
    )
    if other:
        found.append(
            f'scored here with protocol {protocol}; the tests of {", ".join(other)} had another one, '
            'and other figures in their results.json'
        )
    return found


def _target_metrics(method: Method) -> list[dict[str, Any]]:
    """Return the metrics that a run was tested with and has scores of."""
    metrics = method.protocol['metrics'] if method.protocol else {}
    return [of for name, of in metrics.items() if name in method.scores]


def protocol_record(
    methods: Sequence[Method], scored: Sequence[SetScores], protocol: str, packages: Mapping[str, str]
) -> dict[str, Any]:
    """Return how the comparison came about, for protocol.json."""
    return {
        'protocol': protocol,
        'versions': dict(packages),
        'sets': {
            one.compared.name: {
                'images': len(one.compared.stems),
                'left_out': list(one.compared.left_out),
                'metrics': list(one.metrics),
                'targets': one.compared.targets.root if one.compared.targets else None,
            }
            for one in scored
        },
        'runs': {m.name: _run_record(m) for m in methods},
    }


def _run_record(method: Method) -> dict[str, Any]:
    record: dict[str, Any] = {'folder': str(method.path), 'protocol': method.protocol}
    return record | ({'repeats': [_run_record(run) for run in method.repeats]} if method.repeats else {})


def _difference_row(d: Difference) -> list[str]:
    score, found = SCORES[d.score], d.found
    digits = score.digits + 1
    interval = f'{found.low:+.{digits}f} to {found.high:+.{digits}f}' if math.isfinite(found.low) else '-'
    mean = f'{found.mean:+.{digits}f}' if math.isfinite(found.mean) else '-'
    equal = found.scenes - found.wins - found.losses
    p = f'{found.p_value:.2g}' if math.isfinite(found.p_value) else '-'
    counts = f'{found.wins} / {equal} / {found.losses}'
    return [d.method, d.set, score.label, mean, interval, counts, p, found.verdict]
