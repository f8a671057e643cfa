import pytest
import torch
from basicsr.losses import build_loss

from ddsa_arch.ops.guided_filter import base_layer


def test_it_compares_detail_layers_away_from_the_border():
    target, detail = torch.rand(2, 3, 20, 30), torch.rand(2, 3, 20, 30)
    wanted = (target - base_layer(target))[..., 4:-4, 4:-4]
    expected = ((detail[..., 4:-4, 4:-4] - wanted) ** 2).mean().item()
    loss = build_loss({'type': 'DetailLoss', 'loss_weight': 2})
    assert loss([detail, torch.zeros_like(target)], target).item() == pytest.approx(2 * expected, rel=1e-6)
    assert loss([target - base_layer(target), target], target).item() == 0


def test_a_network_without_its_detail_layer_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r'set network_g\.return_detail: true'):
        build_loss({'type': 'DetailLoss'})(torch.zeros(1, 3, 9, 9), torch.zeros(1, 3, 9, 9))
