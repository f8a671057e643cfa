"""Scores of several methods in the shapes of a paper's tables, as Markdown and LaTeX.

Rows that were measured and rows that others have reported stand apart, each labelled; the best and the second best
are marked among the rows of one kind, never across, as their protocols and trainings need not be the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from ddsa_arch.archs.cards import MEASURED, REPORTED
from ddsa_arch.comparison.scores import SCORES
from ddsa_arch.files.tables import finite_mean, markdown_table

AVERAGE = 'Average'
BEST, SECOND = 'best', 'second'
NO_VALUE = '-'
LEGEND = '**best** and *second best* among the measured rows, and among the reported ones.'

Means = Mapping[str, Mapping[str, float]]  # by set, then by score


@dataclass(frozen=True)
class Row:
    """One row of a table: a method and its mean scores.

    Args:
        name: of the method.
        means: of each set, and ``AVERAGE`` where it is known.
        kind: ``measured`` or ``reported``.
        digits: printed after the point, by score; the scores' own by default.
        switches: for ablations, whether each part is there.
        provenance: of a reported row, such as ``own`` or ``quoted``.
    """

    name: str
    means: Means
    kind: str = MEASURED
    digits: Mapping[str, int] = field(default_factory=dict)
    switches: Mapping[str, bool] | None = None
    provenance: str = ''

    @property
    def label(self) -> str:
        """Return the name, and that the row is reported if it is."""
        return f'{self.name} ({REPORTED})' if self.kind == REPORTED else self.name

    def value(self, set_name: str, score: str) -> float:
        """Return a mean; NaN where it is not known."""
        return float(self.means.get(set_name, {}).get(score, math.nan))

    def shown(self, set_name: str, score: str) -> str:
        """Return a mean as it is printed."""
        value = self.value(set_name, score)
        return f'{value:.{self.digits.get(score, SCORES[score].digits)}f}' if math.isfinite(value) else NO_VALUE


@dataclass(frozen=True)
class Cell:
    """The texts of one cell, joined by a slash, each with its mark: ``best``, ``second`` or ''."""

    parts: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, text: str, mark: str = '') -> Cell:
        return cls(((text, mark),))


@dataclass(frozen=True)
class Table:
    """A table before it is written down.

    Args:
        groups: titles above the columns after the first, and how many columns each spans; none for no such line.
        header: of the columns.
        lines: cells of each line.
        blocks: lines before which a rule is drawn.
    """

    groups: Sequence[tuple[str, int]]
    header: Sequence[str]
    lines: Sequence[Sequence[Cell]]
    blocks: Sequence[int] = ()


def with_average(means: Means, sets: Sequence[str], scores: Sequence[str]) -> dict[str, dict[str, float]]:
    """Add to the means of the sets the mean of these; a score that a set lacks has no average."""
    average = {}
    for score in scores:
        values = [means.get(name, {}).get(score, math.nan) for name in sets]
        average[score] = finite_mean(values) if all(map(math.isfinite, values)) else math.nan
    return {**{name: dict(of) for name, of in means.items()}, AVERAGE: average}


def marks(rows: Sequence[Row], set_name: str, score: str) -> list[str]:
    """Mark the best and the second best row as printed, among rows of one kind; equal values share a mark."""
    found = []
    for row in rows:
        rivals = {r.shown(set_name, score) for r in rows if r.kind == row.kind} - {NO_VALUE}
        order = sorted(rivals, key=float, reverse=SCORES[score].higher_is_better)
        shown = row.shown(set_name, score)
        alone = len([r for r in rows if r.kind == row.kind]) < 2
        place = order.index(shown) if shown in order and not alone else -1
        found.append({0: BEST, 1: SECOND}.get(place, ''))
    return found


def sets_table(rows: Sequence[Row], columns: Sequence[tuple[str, Sequence[str]]]) -> Table:
    """Make a table with methods down, and sets and scores across, as Table 1 of the paper.

    Args:
        rows: measured ones first.
        columns: each set and its scores.
    """
    marked = {(name, score): marks(rows, name, score) for name, scores in columns for score in scores}
    lines = []
    for place, row in enumerate(rows):
        cells = [Cell.of(row.shown(name, score), marked[name, score][place]) for name, score in marked]
        lines.append([Cell.of(row.label), *cells])
    header = ['Method', *(SCORES[score].label for _, scores in columns for score in scores)]
    return Table([(name, len(scores)) for name, scores in columns], header, lines, _blocks(rows))


def methods_table(rows: Sequence[Row], columns: Sequence[tuple[str, Sequence[str]]]) -> Table:
    """Make a table with methods across, and a line of scores joined by slashes for each set, as the paper's Table 2."""
    lines = []
    for name, scores in columns:
        marked = [marks(rows, name, score) for score in scores]
        title = ' / '.join(SCORES[score].label for score in scores)
        cells = [
            Cell(tuple((row.shown(name, s), of[place]) for s, of in zip(scores, marked, strict=True)))
            for place, row in enumerate(rows)
        ]
        lines.append([Cell.of(f'{title}, {name}'), *cells])
    return Table([], ['Method', *(row.label for row in rows)], lines)


def ablation_table(rows: Sequence[Row], columns: Sequence[tuple[str, Sequence[str]]], parts: Sequence[str]) -> Table:
    """Make a table with models across, and their parts and scores down, as Table 3 of the paper."""
    lines = []
    for part in parts:
        ticks = [Cell.of('✓' if row.switches and row.switches.get(part) else '') for row in rows]
        lines.append([Cell.of(part), *ticks])
    for name, scores in columns:
        for score in scores:
            cells = [
                Cell.of(row.shown(name, score), mark) for row, mark in zip(rows, marks(rows, name, score), strict=True)
            ]
            lines.append([Cell.of(f'{SCORES[score].label}, {name}'), *cells])
    return Table([], ['Model', *(row.label for row in rows)], lines, [len(parts)])


def _blocks(rows: Sequence[Row]) -> list[int]:
    """Return the lines at which the next kind of row begins."""
    lengths = [len(list(group)) for _, group in groupby(rows, key=lambda row: row.kind)]
    return [sum(lengths[:k]) for k in range(1, len(lengths))]


def to_markdown(table: Table) -> str:
    """Write the table for GitHub and for a terminal; groups become part of the header."""
    header = list(table.header)
    titles = [title for title, span in table.groups for _ in range(span)]
    for place, title in enumerate(titles, start=1):
        header[place] = f'{title} {header[place]}'
    styles: dict[str, Callable[[str], str]] = {BEST: lambda t: f'**{t}**', SECOND: lambda t: f'*{t}*'}
    lines = [[_render(cell, _plain, styles) for cell in line] for line in table.lines]
    return markdown_table(lines, [_plain(title) for title in header])


def to_latex(table: Table, caption: str) -> str:
    """Write a LaTeX ``table`` environment with rules of the package booktabs, and ticks of amssymb.

    Args:
        table: to write.
        caption: below it; plain text.
    """
    styles: dict[str, Callable[[str], str]] = {
        BEST: lambda t: rf'\textbf{{{t}}}',
        SECOND: lambda t: rf'\underline{{{t}}}',
    }
    spans = ' '.join('c' * span for _, span in table.groups) or 'c' * (len(table.header) - 1)
    out = [r'% needs \usepackage{booktabs, amssymb}', r'\begin{table}[t]', r'\centering']
    out += [rf'\caption{{{_latex(caption)}}}', rf'\begin{{tabular}}{{l {spans}}}', r'\toprule']
    if table.groups:
        out.append(' & '.join(['', *(rf'\multicolumn{{{n}}}{{c}}{{{_latex(t)}}}' for t, n in table.groups)]) + r' \\')
    out.append(' & '.join(_latex(title) for title in table.header) + r' \\')
    for place, line in enumerate(table.lines):
        if place == 0 or place in table.blocks:
            out.append(r'\midrule')
        out.append(' & '.join(_render(cell, _latex, styles) for cell in line) + r' \\')
    return '\n'.join([*out, r'\bottomrule', r'\end{tabular}', r'\end{table}', ''])


def _render(cell: Cell, escape: Callable[[str], str], styles: Mapping[str, Callable[[str], str]]) -> str:
    return ' / '.join(styles[mark](escape(text)) if mark else escape(text) for text, mark in cell.parts)


def _plain(text: str) -> str:
    return text.replace('|', r'\|')


LATEX = {
    '\\': r'\textbackslash{}', '✓': r'\checkmark', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}',
    **{sign: '\\' + sign for sign in '&%$#_{}'},
}  # fmt: skip


def _latex(text: str) -> str:
    return ''.join(LATEX.get(sign, sign) for sign in text)
