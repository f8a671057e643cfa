import itertools

import cv2
import matplotlib.pyplot
import numpy as np
import pytest

from ddsa_arch.files.plots import Curve, Point, plot, running_mean, scatter, write_plot


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


CROWD = [
    Point('SEMI', 3.7, 22.88, 'a'), Point('DIDMDN', 7.2, 24.64, 'a'), Point('MSPFN', 130, 30.75, 'a'),
    Point('MPRNet', 141, 32.73, 'a'), Point('DGUNet', 193.9, 33.06, 'b'), Point('Uformer-B', 86.6, 32.01, 'b'),
    Point('IDT', 62, 32.28, 'b'), Point('DDSANet', 115, 33.33, 'b'), Point('Twin of DDSANet', 115, 33.33, 'b'),
]  # fmt: skip


def test_dots_lie_where_their_logarithm_says(tmp_path):
    figure = scatter([Point('a', 1, 10, 'x'), Point('b', 10, 20, 'x'), Point('c', 1000, 15, 'x')], 'T', 'x', 'y')
    write_plot(tmp_path / 'a.png', figure)
    height = cv2.imread(str(tmp_path / 'a.png')).shape[0]
    columns, rows = ink(tmp_path / 'a.png')
    places = [figure.axes[0].transData.transform(point) for point in ((1, 10), (10, 20), (1000, 15))]
    assert places[2][0] - places[1][0] == pytest.approx(2 * (places[1][0] - places[0][0]))
    for column, from_below in places:
        assert np.hypot(columns - column, rows - (height - from_below)).min() < 1.5


def test_labels_cover_neither_dots_nor_each_other_nor_the_frame():
    axes = scatter(CROWD, 'T', 'x', 'y').axes[0]
    assert sorted(label.get_text() for label in axes.texts) == sorted(point.name for point in CROWD)
    for label in axes.texts:
        label.arrow_patch = None  # the line to the dot is no part of the words
    words = [label.get_window_extent() for label in axes.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(words, 2))
    dots = [axes.transData.transform((point.x, point.y)) for point in CROWD]
    assert not any(box.contains(*dot) for box in words for dot in dots)
    assert all(axes.bbox.containsx(x) and axes.bbox.containsy(y) for box in words for x, y in box.corners())


def test_settings_have_markers_and_families_colours():
    points = [Point('a', 1, 5, 'x', 'small'), Point('a', 4, 5, 'x', 'large'), Point('b', 2, 6, 'y', 'small')]
    axes = scatter(points, 'T', 'x', 'y').axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ['x', 'y', 'small', 'large']
    dots = [line for line in axes.lines if line.get_marker() != 'None']
    drawn = {(line.get_xdata()[0], line.get_marker(), line.get_color()) for line in dots}
    assert drawn == {(1, 'o', 'C0'), (4, 's', 'C0'), (2, 'o', 'C1')}
    assert [label.get_text() for label in axes.texts] == ['a', 'b']


@pytest.mark.parametrize('length', [5, 30, 50, 70])
def test_long_legends_leave_room_for_the_dots(length):
    points = [Point('a', x, 5, f'family {x}', f'{x}'.ljust(length, 'e')) for x in range(1, 5)]
    figure = scatter(points, 'T', 'x', 'y')
    figure.draw_without_rendering()
    assert figure.axes[0].bbox.width > 0.8 * figure.bbox.width
    legend = figure.axes[0].get_legend().get_window_extent()
    assert legend.x0 >= 0
    assert legend.x1 <= figure.bbox.width


def test_one_family_needs_no_legend():
    assert scatter([Point('a', 1, 5, 'x')], 'T', 'x', 'y').axes[0].get_legend() is None
