from fractions import Fraction

import pytest
from video_files import make_video, told

from ddsa_arch.files.matroska import ASPECT_HOLDER, write_aspect


@pytest.mark.parametrize('form', ['matroska', 'webm'])
@pytest.mark.parametrize('aspect', [Fraction(16, 15), Fraction(3, 4), Fraction(64, 45), Fraction(99, 70)])
def test_the_shape_of_pixels_is_read_by_others(tmp_path, form, aspect):
    codec = 'libvpx-vp9'

    def held(_, stream):
        stream.set_display_matrix(ASPECT_HOLDER)

    path = make_video(tmp_path / 'a.mkv', codec, frames=3, size=(60, 48), before=held, form=form)
    size = path.stat().st_size
    assert write_aspect(path, 60, 48, aspect)
    found = told(path)
    assert path.stat().st_size == size
    assert found['aspect'] == aspect
    assert (found['rotation'], len(found['frames'])) == (0, 3)


def test_without_a_place_nothing_is_written(tmp_path):
    path = make_video(tmp_path / 'a.mkv', 'ffv1', frames=2)
    data = path.read_bytes()
    assert not write_aspect(path, 64, 48, Fraction(4, 3))
    assert path.read_bytes() == data
