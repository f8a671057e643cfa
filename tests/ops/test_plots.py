import cv2
import matplotlib.pyplot
import numpy as np
import pytest

from ddsa_arch.ops.plots import Curve, plot, running_mean, write_plot


def ink(path):
    """Coordinates (column, row) of coloured pixels: grid, frame and text are grey."""
    image = cv2.imread(str(path)).astype(int)
    rows, columns = np.nonzero(image.max(2) - image.min(2) > 60)
    return columns, rows


def test_a_figure_holds_the_points_it_was_given():
    axes = plot([Curve('a', [1, 2, 4], [3.0, 1.0, 2.0]), Curve('b', [0], [5.0])], 'T', 'x', 'y').axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[1, 3], [2, 1], [4, 2]], [[0, 5]]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ['a', 'b']
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ('T', 'x', 'y')


def test_a_falling_curve_falls_on_the_picture(tmp_path):
    path = tmp_path / 'new' / 'falling.png'
    write_plot(path, plot([Curve('', range(50), range(100, 50, -1))], 'T', 'x', 'y'))
    columns, rows = ink(path)
    assert np.ptp(columns) > 400
    tops = [rows[columns == column].min() for column in np.unique(columns)]
    assert tops[-1] - tops[0] > 200
    assert (np.diff(tops[2:]) >= 0).all()  # behind the round end of the line
    assert [p.name for p in path.parent.iterdir()] == ['falling.png']


def test_the_line_passes_through_its_points(tmp_path):
    """The figure's own transform says where a point lies, in pixels from the lower left."""
    points = [(0, 1.0), (10, 100.0), (30, 0.1)]
    figure = plot([Curve('', *zip(*points, strict=True))], 'T', 'x', 'y', log_y=True)
    write_plot(tmp_path / 'a.png', figure)
    height = cv2.imread(str(tmp_path / 'a.png')).shape[0]
    columns, rows = ink(tmp_path / 'a.png')
    for point in points:
        column, from_below = figure.axes[0].transData.transform(point)
        assert np.hypot(columns - column, rows - (height - from_below)).min() < 2


def test_no_state_of_pyplot_is_touched():
    before = matplotlib.get_backend(auto_select=False), matplotlib.pyplot.get_fignums()
    plot([Curve('a', [1, 2], [1, 2])], 'T', 'x', 'y')
    assert (matplotlib.get_backend(auto_select=False), matplotlib.pyplot.get_fignums()) == before


def test_gaps_and_faint_curves_have_no_entry_of_their_own():
    axes = plot([Curve('', [1, 2, 3], [1, float('nan'), 2], faint=True), Curve('a', [1], [1])], 'T', 'x', 'y').axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ['a']


def test_running_mean_looks_back():
    assert running_mean([1.0, 3.0, 5.0, 7.0], 2) == pytest.approx([1, 2, 4, 6])
    assert running_mean([], 3) == []
