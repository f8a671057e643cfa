import numpy as np

from ddsa_arch.ops.figures import BAR, GAP, fit_width, side_by_side


def test_images_stand_in_a_row_under_their_labels():
    images = [np.full((20, 30, 3), value, np.uint8) for value in (10, 200)]
    row = side_by_side(images, ['rainy', 'a label that is wider than its image'])
    assert row.shape == (20 + BAR, 30 + GAP + 30, 3)
    assert (row[BAR:, :30] == 10).all()
    assert (row[BAR:, 30 + GAP :] == 200).all()
    assert (row[:BAR, :30] < 128).any()  # ink
    assert (row[:, 30 : 30 + GAP] == 255).all()


def test_narrow_images_grow_by_whole_factors_and_wide_ones_shrink():
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    grown = fit_width(image, least=11, most=40)
    assert grown.shape == (12, 15, 3)
    assert (grown[1::3, 1::3] == image).all()
    assert fit_width(np.zeros((30, 80, 3), np.uint8), least=11, most=40).shape == (15, 40, 3)
    assert (fit_width(image, least=5, most=5) == image).all()
