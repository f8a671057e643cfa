import torch
from torch import nn

from ddsa_arch.models.restore import final_output, restore


class Shifting(nn.Module):
    """Returns its input as the last of two outputs, and insists on its size multiple."""

    size_multiple = 8

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        assert x.shape[-2] % 8 == 0
        assert x.shape[-1] % 8 == 0
        return [torch.zeros_like(x), self.dropout(x)]


def test_padding_is_added_and_removed_and_the_last_output_taken():
    for size in [(1, 1), (1, 9), (8, 16), (13, 31)]:
        x = torch.rand(2, 3, *size)
        assert torch.equal(restore(Shifting(), x), x)


def test_the_mode_of_the_network_is_kept():
    net = Shifting().train()
    restore(net, torch.rand(1, 3, 4, 4))
    assert net.training
    assert not restore(net, torch.rand(1, 3, 4, 4)).requires_grad


def test_the_final_output_of_one_tensor_is_itself():
    x = torch.rand(1)
    assert final_output(x) is x
    assert final_output([torch.zeros(1), x]) is x
