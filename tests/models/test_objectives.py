import pytest
import torch
from torch import nn

from ddsa_arch.models.objectives import Objectives


class Counting(nn.Module):
    """Carries the number of its calls from step to step."""

    def __init__(self):
        super().__init__()
        self.register_buffer('calls', torch.zeros(()))

    def forward(self, outputs, target):
        self.calls += 1
        return self.calls * (outputs - target).abs().mean()


def perceptual(final, target):
    return (final - target).mean(), None


def test_each_loss_has_its_name_and_the_perceptual_one_the_final_image():
    outputs, target = [torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)], torch.zeros(1, 3, 2, 2)
    pixel = lambda out, gt: sum((o - gt).abs().mean() for o in out)  # noqa: E731
    losses = Objectives(pixel, perceptual, {'edge': lambda out, gt: torch.tensor(5.0)})(outputs, target)
    assert {k: v.item() for k, v in losses.items()} == {'l_pix': 1, 'l_edge': 5, 'l_percep': 1}
    assert list(Objectives(None, None, {'edge': lambda out, gt: torch.tensor(5.0)})(outputs, target)) == ['l_edge']


@pytest.mark.parametrize('place', ['pixel', 'further'])
def test_what_a_loss_carries_from_step_to_step_is_saved_and_taken_up(place):
    def build():
        loss = Counting()
        return Objectives(loss, None, {}) if place == 'pixel' else Objectives(None, None, {'count': loss})

    x = torch.ones(1)
    one, other = build(), build()
    for _ in range(3):
        one(x, 0 * x)
    other.load_state(one.state())
    assert [v.item() for v in other(x, 0 * x).values()] == [4]
    assert Objectives(nn.L1Loss(), None, {}).state() == {}
