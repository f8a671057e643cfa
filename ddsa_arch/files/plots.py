"""Curves and points as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddsa_arch.files.atomic import atomic_path

if TYPE_CHECKING:  # matplotlib takes a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (8.0, 4.5)  # inches
SCATTER_SIZE = (8.0, 5.5)
DPI = 100  # pixels to the inch
POINTS_PER_INCH = 72
MARKED_AT_MOST = 30  # points of a curve that get a dot
MARKERS = 'os^DvP*X<>'
DOT = 6.0  # points, size of a marker
LEGEND_WIDTH = 80  # letters
LABEL_SIZE = 9  # points
LABEL_DISTANCES = (7, 16, 28, 42, 58, 76)  # points, from a dot to its label: the nearest that is free
LABEL_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
LEADER_FROM = 16  # points; a label so far away or farther is tied to its dot by a line


@dataclass(frozen=True)
class Curve:
    """Points joined by a line.

    Args:
        name: in the legend; '' for none.
        x: ascending.
        y: of equal length; NaN leaves a gap.
        faint: drawn thin and pale, behind the others.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    faint: bool = False


def plot(curves: Sequence[Curve], title: str, x_label: str, y_label: str, log_y: bool = False) -> Figure:
    """Draw curves in one figure, in memory: no window opens, and pyplot's state is left alone.

    Args:
        curves: at least one point in all.
        title: above the figure.
        x_label: below it.
        y_label: beside it.
        log_y: logarithmic y axis; points at or below 0 are left out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=SIZE, dpi=DPI, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for curve in curves:
        marker = 'o' if len(curve.x) <= MARKED_AT_MOST and not curve.faint else ''
        style = {'linewidth': 0.8, 'alpha': 0.35, 'color': 'grey'} if curve.faint else {'linewidth': 1.6}
        axes.plot(curve.x, curve.y, marker=marker, markersize=4, label=curve.name or '_', **style)
    if log_y:
        axes.set_yscale('log')
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    if any(curve.name for curve in curves):
        axes.legend(frameon=False)
    return figure


@dataclass(frozen=True)
class Point:
    """One dot of a scatter plot.

    Args:
        name: beside the first dot of that name; dots of one name are joined by a line.
        x: above 0.
        y: any number.
        family: gives the colour.
        setting: gives the marker; '' where there is one alone.
    """

    name: str
    x: float
    y: float
    family: str
    setting: str = ''


def scatter(points: Sequence[Point], title: str, x_label: str, y_label: str) -> Figure:
    """Draw labelled dots over a logarithmic x axis, in memory. Labels keep clear of dots and of each other.

    Args:
        points: at least one.
        title: above the figure.
        x_label: below it.
        y_label: beside it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure = Figure(figsize=SCATTER_SIZE, dpi=DPI, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    families = list(dict.fromkeys(point.family for point in points))
    settings = list(dict.fromkeys(point.setting for point in points))
    colours = {family: f'C{i}' for i, family in enumerate(families)}
    markers = {setting: MARKERS[i % len(MARKERS)] for i, setting in enumerate(settings)}
    for name in dict.fromkeys(point.name for point in points):
        same = sorted((point for point in points if point.name == name), key=lambda point: point.x)
        colour = colours[same[0].family]
        axes.plot([p.x for p in same], [p.y for p in same], color=colour, linewidth=0.8, alpha=0.4, label='_')
        for point in same:
            marker = markers[point.setting]
            axes.plot([point.x], [point.y], marker, color=colours[point.family], markersize=DOT, label='_')
    axes.set_xscale('log')
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f'{x:g}'))
    low, high = min(p.x for p in points), max(p.x for p in points)
    if high / low < 100:  # a decade or two alone would have one or two numbers
        axes.xaxis.set_minor_formatter(FuncFormatter(_two_and_five))
    else:
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(0.12)
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3, which='both')
    keys = [Line2D([], [], marker='o', linestyle='', color=colours[f], label=f) for f in families if f]
    if len(settings) > 1:
        keys += [Line2D([], [], marker=markers[s], linestyle='', color='grey', label=s) for s in settings]
    if len(keys) > 1:
        columns = max(1, min(3, LEGEND_WIDTH // max(len(str(key.get_label())) for key in keys)))
        axes.legend(
            handles=keys, ncols=columns, frameon=False, fontsize=LABEL_SIZE,
            loc='upper center', bbox_to_anchor=(0.5, -0.15),
        )  # fmt: skip
    figure.draw_without_rendering()  # labels are placed where the axes come to lie
    _label(axes, points, colours)
    return figure


def _two_and_five(x: float, _: int) -> str:
    """Return the number for a tick at 2 or 5 times a power of ten, and '' for other ticks."""
    return f'{x:g}' if f'{x:e}'[0] in '25' else ''


def _label(axes: Axes, points: Sequence[Point], colours: dict[str, str]) -> None:
    """Write each name once, at the nearest place that is free of dots, of other labels and of the frame."""
    pixels = axes.figure.dpi / POINTS_PER_INCH
    places = {point: axes.transData.transform((point.x, point.y)) for point in points}
    half = DOT / 2 * pixels
    taken = [(x - half, y - half, x + half, y + half) for x, y in places.values()]
    for name in {point.name for point in points}:
        xs, ys = zip(*(place for point, place in places.items() if point.name == name), strict=True)
        if max(ys) - min(ys) < half:  # a level line, as of one network in several settings
            taken.append((min(xs), min(ys) - 1, max(xs), max(ys) + 1))
    first = {point.name: point for point in reversed(points)}
    for point in sorted(first.values(), key=lambda point: point.x):
        style: dict[str, Any] = {'color': colours[point.family], 'fontsize': LABEL_SIZE, 'in_layout': False}
        probe = axes.text(0, 0, point.name, **style)
        width, height = probe.get_window_extent().width, probe.get_window_extent().height
        probe.remove()
        free = []
        for distance in LABEL_DISTANCES:
            for right, up in LABEL_DIRECTIONS:
                x, y = places[point] + pixels * distance * np.array([right, up])
                left, bottom = x + (right - 1) / 2 * width, y + (up - 1) / 2 * height
                box = left, bottom, left + width, bottom + height
                covered = sum(_common_area(box, other) for other in taken)
                outside = width * height - _common_area(box, axes.bbox.extents)
                free.append((round(covered + outside), distance, right, up, box))
        _, distance, right, up, box = min(free, key=lambda place: place[0])  # the nearest of the freest
        leader = {'arrowstyle': '-', 'color': colours[point.family], 'alpha': 0.5, 'linewidth': 0.7, 'shrinkB': 4}
        axes.annotate(
            point.name, (point.x, point.y), (right * distance, up * distance), textcoords='offset points',
            ha=('center', 'left', 'right')[right], va=('center', 'bottom', 'top')[up],
            arrowprops=leader if distance >= LEADER_FROM else None, **style,
        )  # fmt: skip
        taken.append(box)


def _common_area(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the area that two boxes (left, bottom, right, top) share."""
    width, height = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    return max(width, 0.0) * max(height, 0.0)


def write_plot(path: str | Path, figure: Figure) -> None:
    """Write a figure as PNG, whole or not at all; parent folders are made."""
    with atomic_path(path) as part:
        figure.savefig(part, format='png')


def running_mean(values: Sequence[float], count: int) -> list[float]:
    """Return the mean of each value and of up to ``count - 1`` values before it."""
    means = []
    for i in range(len(values)):
        window = values[max(0, i - count + 1) : i + 1]
        means.append(sum(window) / len(window))
    return means
