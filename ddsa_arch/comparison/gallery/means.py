"""The gallery's table of mean scores, as HTML that is there without JavaScript too."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

from ddsa_arch.comparison.scores import Score
from ddsa_arch.files.tables import finite_mean

Values = Sequence[Sequence[float]]  # of an image, by method, then by score; NaN where there is none
MARKS = (' class="best"', ' class="second"')


def means_table(
    methods: Sequence[str], scores: Sequence[Score], sets: Mapping[str, Sequence[Values]], target: str | None
) -> str:
    """Return the table: a row for each method, a column for each score of each set, and of all sets if several.

    Infinite values and NaN are in no mean; a mean over fewer images than its column has says over how many, and is not
    ranked where another is over more. The best and the second best are marked by what is printed, so that equal numbers
    are marked alike.

    Args:
        methods: names.
        scores: in the order of the values.
        sets: by name the values of their images.
        target: the method that is not ranked.
    """
    groups = list(sets.items())
    if len(groups) > 1:
        groups.append(('all sets', [values for images in sets.values() for values in images]))
    lines = ['<table><thead>']
    if len(groups) > 1 and scores:
        spans = [
            f'<th class="set" scope="colgroup" colspan="{len(scores)}">{html.escape(name)}, {counted(len(images))}</th>'
            for name, images in groups
        ]
        lines.append(f'<tr><td></td>{"".join(spans)}</tr>')
    heads = ''.join(map(_head, scores)) * len(groups)
    lines.append(f'<tr><th scope="col">Method</th>{heads}</tr></thead><tbody>')
    columns = [
        _column([[values[method][index] for values in images] for method in range(len(methods))], score,
                [name != target for name in methods])
        for _, images in groups
        for index, score in enumerate(scores)
    ]  # fmt: skip
    for method, name in enumerate(methods):
        if name == target and not any(math.isfinite(v) for _, of in groups for values in of for v in values[method]):
            continue  # nothing scores the ground truth
        kind = ' class="target"' if name == target else ''
        cells = ''.join(column[method] for column in columns)
        lines.append(f'<tr{kind}><th scope="row"><bdi>{html.escape(name)}</bdi></th>{cells}</tr>')
    return '\n'.join([*lines, '</tbody></table>'])


def _head(score: Score) -> str:
    unit = f' in {score.unit}' if score.unit else ''
    arrow, meaning = ('↑', 'higher is better') if score.higher_is_better else ('↓', 'lower is better')
    return f'<th scope="col">{html.escape(score.label + unit)} <span title="{meaning}">{arrow}</span></th>'


def _column(values: Sequence[Sequence[float]], score: Score, ranked: Sequence[bool]) -> list[str]:
    """Return the cells of a score: for each method its values, and whether it is ranked.

    A method whose mean is over fewer images than another's is not ranked: it may lack just the hard ones.
    """
    texts = [score.show(finite_mean(row)) for row in values]
    counts = [sum(map(math.isfinite, row)) for row in values]
    most = max((count for count, takes in zip(counts, ranked, strict=True) if takes), default=0)
    takes_part = [takes and count == most > 0 for count, takes in zip(counts, ranked, strict=True)]
    ranks = sorted({float(text) for text, takes in zip(texts, takes_part, strict=True) if takes},
                   reverse=score.higher_is_better)  # fmt: skip
    cells = []
    for row, text, count, takes in zip(values, texts, counts, takes_part, strict=True):
        rank = ranks.index(float(text)) if takes and sum(takes_part) > 1 else len(MARKS)
        mark = MARKS[rank] if rank < len(MARKS) else ''
        some = f' <small>({count})</small>' if 0 < count < len(row) else ''
        cells.append(f'<td{mark}>{text}{some}</td>')
    return cells


def means_legend(scores: Sequence[Score], values: Sequence[Values]) -> str:
    """Return the legend of :func:`means_table`.

    Args:
        scores: of the table; without any, only the number of images is said.
        values: of all images.
    """
    if not scores:
        return f'{counted(len(values))}.'
    parts = [f'Means over {counted(len(values))}', 'best bold, second underlined']
    finite = [[math.isfinite(value) for row in image for value in row] for image in values]
    if any(any(column) and not all(column) for column in zip(*finite, strict=True)):
        parts.append('in brackets over how many, where not all have a finite value; a mean over fewer is not ranked')
    return '; '.join(parts) + '.'


def counted(count: int) -> str:
    """Return a count with its noun, such as ``1 image`` or ``2 images``."""
    return f'{count} image' + ('s' if count != 1 else '')
