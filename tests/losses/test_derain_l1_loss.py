import pytest
import torch
from basicsr.losses import build_loss

from ddsa_arch.losses.derain_l1_loss import DerainL1Loss


def test_it_is_the_mean_of_absolute_differences():
    output, target = torch.tensor([[[[0.0, 1.0], [0.5, 0.25]]]]), torch.tensor([[[[1.0, 1.0], [0.0, 0.5]]]])
    assert DerainL1Loss()(output, target).item() == (1 + 0 + 0.5 + 0.25) / 4
    assert DerainL1Loss(loss_weight=2)(output, target).item() == (1 + 0 + 0.5 + 0.25) / 2


def test_several_outputs_are_summed_with_their_weights():
    target = torch.zeros(1, 3, 2, 2)
    outputs = [torch.full_like(target, v) for v in (1.0, 2.0, 4.0)]
    assert DerainL1Loss()(outputs, target).item() == 7.0
    assert DerainL1Loss(output_weights=[0.5, 0, 1])(outputs, target).item() == 4.5


def test_another_number_of_weights_is_refused():
    with pytest.raises(ValueError, match='output_weights has 1 entries, the network 2 outputs'):
        DerainL1Loss(output_weights=[1])([torch.zeros(1)] * 2, torch.zeros(1))


def test_weights_of_which_all_are_zero_are_refused():
    """Their sum would be the number 0, which has no gradient."""
    with pytest.raises(ValueError, match='output_weights: all of them are 0'):
        DerainL1Loss(output_weights=[0, 0])([torch.zeros(1)] * 2, torch.zeros(1))


def test_an_option_file_can_name_it():
    assert isinstance(build_loss({'type': 'DerainL1Loss', 'loss_weight': 0.5}), DerainL1Loss)
