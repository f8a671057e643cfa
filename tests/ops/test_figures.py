import numpy as np

from ddsa_arch.ops.figures import BAR, GAP, side_by_side


def test_images_stand_in_a_row_under_their_labels():
    images = [np.full((20, 30, 3), value, np.uint8) for value in (10, 200)]
    row = side_by_side(images, ['rainy', 'a label that is wider than its image'])
    assert row.shape == (20 + BAR, 30 + GAP + 30, 3)
    assert (row[BAR:, :30] == 10).all()
    assert (row[BAR:, 30 + GAP :] == 200).all()
    assert (row[:BAR, :30] < 128).any()  # ink
    assert (row[:, 30 : 30 + GAP] == 255).all()
