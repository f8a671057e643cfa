"""``ddsa networks``: the networks of the comparison, their size, cost and origin; or the page about them."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from functools import cache
from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY

from ddsa_arch.archs.cards import (
    AVERAGES,
    CARDS,
    PUBLISHED,
    Card,
    describe_provenance,
    printed_digits,
    published_averages,
    published_scores,
)
from ddsa_arch.archs.complexity import Complexity, complexity
from ddsa_arch.files.tables import markdown_table
from ddsa_arch.sets.benchmarks import TEST_SETS

SIDE = 256  # of the image whose cost is counted, as papers have it
COLUMNS = (
    'method', 'network', 'year', 'parameters', 'conv MACs', 'all MACs', 'time (s)', 'memory (MiB)', 'H, W', 'outputs',
    'golden', 'published code', 'note',
)  # fmt: skip
MEASURED = PUBLISHED.with_name('measured.csv')  # by one run of ddsa benchmark
PAGE_HEAD = """# Networks

Written by `ddsa networks readme > ddsa_arch/archs/README.md`; edit `cards.py` and `published.yml` instead.

Each is registered with BasicSR under the name in the second column, so an option file takes it as `network_g.type`.
All were written from papers and from descriptions of what the published code does; none of that code is here, whatever
its licence. State-dict keys are the published ones: the authors' weight files load with `strict_load_g: true`.
Recipes: [`options/train/`](../../options/train) has the published one of each (`<Net>_Rain13K.yml`) and, in
`equal_budget/`, DDSANet's for all, so that a comparison changes the network alone; `options/test/` has each published
test recipe, and a plain one where that is peculiar.

## Size and cost

Multiply-adds for one 256 x 256 image in units of 10^9: of convolutions and linear layers, which is what most papers
print, and of all products, those between features (attention) included. Norms, activations, Fourier transforms and
resizing are left out. They are those of the networks as built; fast execution (`ddsa_arch.fast`) does a little less,
for MSPFN less than half.
*Time* and *memory*: of one such image in float32 as all commands run it, medians of three on {threads} cores
({device}), all in one run of `ddsa benchmark all --threads {threads} --warmup 1 --repeats 3`, whose table is
`measured.csv`; IDT in 9 overlapping tiles.
*Golden*: outputs equal to those of the published code for the same weights, 1e-6 of their magnitude in float64.
"""
SCORES_HEAD = """## Published scores

Copied, not measured here; every table with what its networks were trained on and how they were scored.
The figures of `ddsa test` are in the project's README.
"""


@cache
def timed() -> dict[str, dict[str, str]]:
    """Return the rows of ``measured.csv`` by the method's name."""
    with MEASURED.open(encoding='utf-8', newline='') as file:
        return {row['network']: row for row in csv.DictReader(file)}


@cache
def measured(name: str) -> tuple[Complexity, int | None, int | None]:
    """Measure size and cost of the network on a card; also return its size multiple, or its only size."""
    card = next(card for card in CARDS if card.name == name)
    net = ARCH_REGISTRY.get(card.network)(**card.arguments)
    return complexity(net, SIDE, SIDE), getattr(net, 'size_multiple', None), getattr(net, 'fixed_size', None)


def rows() -> list[list[Any]]:
    """Return a row for each card: name, network, year, parameters, costs, time, memory, size, outputs ..."""
    return [_row(card) for card in CARDS]


def _row(card: Card) -> list[Any]:
    cost, multiple, fixed = measured(card.name)
    multiple = card.size_multiple or multiple
    size = f'{fixed} alone' if fixed else f'x {multiple}' if multiple and multiple > 1 else 'any'
    return [
        f'[{card.name}]({card.paper})', card.network, card.year, f'{cost.parameters:,}',
        f'{cost.weighed_macs / 1e9:.2f}', f'{cost.macs / 1e9:.2f}', *_time_and_memory(card), size, cost.outputs,
        'yes' if card.golden else 'no', card.licence, card.note,
    ]  # fmt: skip


def _time_and_memory(card: Card) -> list[str]:
    row = timed().get(card.name)
    return [f'{float(row["latency_ms"]) / 1000:.2f}', f'{float(row["peak_memory_mib"]):.0f}'] if row else ['', '']


def page() -> str:
    """Return the text of archs/README.md."""
    machine = next(iter(timed().values()))
    head = PAGE_HEAD.format(threads=machine['threads'], device=machine['device_name'])
    parts = [head, markdown_table(rows(), COLUMNS), '', SCORES_HEAD]
    for table in published_scores().values():
        sets, places = _sets(table), printed_digits(table)
        seen = '' if table['checked'] else ' Written down from memory, not checked again.'
        parts += [
            f'### [{_sentence(table["title"])}]({table["url"]})',
            '',
            f'Trained on: {table["training"]}. Scores: {table["metric"]}. '
            f'Provenance: {describe_provenance(table)}.{seen}',
            '',
            markdown_table(
                [[method, *(_pair(scores.get(s), places) for s in sets)] for method, scores in table['rows'].items()],
                ['method', *sets],
            ),
            '',
        ]
    for table in published_averages().values():
        parts += [
            f'## {_sentence(table["title"])}',
            '',
            table['warning'],
            '',
            f'Trained on: {table["training"]}. Scores: {table["metric"]}, in dB.',
            '',
            markdown_table(
                [
                    [f'[{method}]({url})', f'{figure:.2f}', '' if checked else 'not checked again']
                    for method, (figure, url, checked) in table[AVERAGES].items()
                ],
                ['method', 'average', 'note'],
            ),
            '',
        ]
    return '\n'.join(parts).rstrip('\n') + '\n'


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _sets(table: dict[str, Any]) -> list[str]:
    """Return the sets of a table: the five benchmarks in their order, then others as they come, the average last."""
    found = dict.fromkeys(s for scores in table['rows'].values() for s in scores)
    five = [benchmark.name for benchmark in TEST_SETS]
    order = [*(s for s in five if s in found), *(s for s in found if s not in five and s != 'average')]
    return order + (['average'] if 'average' in found else [])


def _pair(scores: Sequence[float | None] | None, places: tuple[int, int]) -> str:
    pairs = zip(scores or (), places, strict=False)
    return ' / '.join(f'{value:.{place}f}' for value, place in pairs if value is not None)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='ddsa networks', description=__doc__)
    parser.add_argument('what', nargs='?', default='list', choices=['list', 'readme'], help='a table, or the page')
    args = parser.parse_args(argv)
    if args.what == 'readme':
        print(page(), end='')
    else:
        print(markdown_table([[card.name, *row[1:11]] for card, row in zip(CARDS, rows(), strict=True)], COLUMNS[:11]))
    return 0
