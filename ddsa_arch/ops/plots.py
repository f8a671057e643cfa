"""Curves as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ddsa_arch.ops.atomic import atomic_path

if TYPE_CHECKING:  # matplotlib takes a second to import
    from matplotlib.figure import Figure

SIZE = (8.0, 4.5)  # inches
DPI = 100  # pixels to the inch
MARKED_AT_MOST = 30  # points of a curve that get a dot


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
    """Curves in one figure, drawn in memory: no window, and pyplot's state is left alone.

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


def write_plot(path: str | Path, figure: Figure) -> None:
    """Write a figure as PNG, whole or not at all; parent folders are made."""
    with atomic_path(path) as part:
        figure.savefig(part, format='png')


def running_mean(values: Sequence[float], count: int) -> list[float]:
    """The mean of each value and the up to ``count - 1`` before it."""
    means = []
    for i in range(len(values)):
        window = values[max(0, i - count + 1) : i + 1]
        means.append(sum(window) / len(window))
    return means
