"""ELF and ELF-LW against the outputs of the published networks."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY

from ddsa_arch.archs.blocks.channel_attention import CA
from ddsa_arch.archs.elf_arch import ELF, ELFLW, HFN, MAM
from ddsa_arch.losses.pixel_loss import DerainCharbonnierLoss

VARIANTS = {'elf_orb10': ELF, 'elf': partial(ELF, depth=5), 'elf_lw': ELFLW}
FAST, *SLOW = '1x3x64x64', '2x3x64x96', '1x3x48x80'


def check_published(file, build, sizes):
    outputs = file.spec['runs']['plain']['outputs']
    file.spec['runs']['plain']['outputs'] = {size: outputs[size] for size in sizes if size in outputs}
    assert file.spec['runs']['plain']['outputs']
    file.check(build(), lambda net, x: dict(zip(('background_half', 'restored'), net(x), strict=True)))


@pytest.mark.parametrize('name', VARIANTS)
def test_the_published_outputs_are_reached(golden, name):
    check_published(golden(name), VARIANTS[name], [FAST])


@pytest.mark.slow
@pytest.mark.parametrize('name', VARIANTS)
def test_the_published_outputs_of_other_sizes_are_reached(golden, name):
    check_published(golden(name), VARIANTS[name], SLOW)


def tiny(kind=ELF, **changes):
    """A small network whose weights of every kind are away from their initial values."""
    torch.manual_seed(0)
    net = kind(**({'width': 8, 'depth': 2} | changes))
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return net


def test_the_background_at_half_the_size_comes_first_and_the_losses_take_it():
    x = torch.rand(2, 3, 32, 48)
    outputs = tiny()(x)
    assert [tuple(o.shape) for o in outputs] == [(2, 3, 16, 24), (2, 3, 32, 48)]
    loss = DerainCharbonnierLoss(loss_weight=0.3, output_weights=[0.8, 1])
    half = loss.distance(outputs[0], F.interpolate(x, scale_factor=0.5, mode='bilinear'))
    assert loss(outputs, x).item() == pytest.approx(0.3 * (0.8 * half + loss.distance(outputs[1], x)).item())


def test_the_paper_counts_neither_norms_nor_temperatures_and_each_place_of_a_shared_slope():
    net = ELF()
    uncounted = sum(p.numel() for n, p in net.named_parameters() if '.norm' in n or n.endswith('.temperature'))
    assert uncounted == 4651
    aliases = sum(v.numel() for v in net.state_dict().values()) - sum(p.numel() for p in net.parameters())
    assert aliases == 12
    assert sum(p.numel() for p in net.parameters()) - uncounted + aliases == 1_532_143


@pytest.mark.parametrize('kind', [ELF, ELFLW])
def test_the_reduction_reaches_every_channel_attention(kind):
    found = [m.conv_du[0].out_channels for m in tiny(kind, reduction=2).modules() if isinstance(m, CA)]
    assert found == [4] * 41


@pytest.mark.parametrize('name', ['MAM', 'HFN'])
def test_the_parts_are_registered_but_are_no_networks(name):
    assert not hasattr(ARCH_REGISTRY.get(name), 'size_multiple')


@pytest.mark.parametrize(('network', 'prefix'), [('dsnet', 'dsnnet_'), ('ssnet', 'ssnnet_')])
def test_the_hfn_of_a_network_is_the_part(network, prefix):
    """Its layers lie among the network's own, under the published names."""
    whole = getattr(tiny(), network)
    part = HFN(width=8, depth=2)
    weights = {k.removeprefix(prefix): v for k, v in whole.state_dict().items()}
    part.load_state_dict({k: weights[k] for k in part.state_dict()}, strict=True)
    x = torch.rand(1, 8, 16, 24)
    assert torch.equal(part(x), HFN.forward(whole, x))
    assert part.shared_prelu().weight.item() == whole.shared_prelu().weight.item()


def test_the_mam_of_the_network_is_the_part():
    whole = tiny(mam_heads=2).ssnet.stem
    part = MAM(width=8, heads=2)
    part.load_state_dict(whole.state_dict(), strict=True)
    inputs = torch.rand(1, 3, 16, 32), torch.rand(1, 3, 8, 16), torch.rand(1, 3, 8, 16)
    assert torch.equal(part(*inputs), whole(*inputs))


@pytest.mark.parametrize('size', [20, 24, 40])
def test_a_size_that_is_no_multiple_of_16_does_not_pass(size):
    with pytest.raises(RuntimeError, match='Sizes of tensors must match'):
        tiny()(torch.rand(1, 3, size, size))


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'depth': 0}, 'depth: 0 leaves no Former in a branch; the published network has 10'),
        ({'gate': 'relu'}, "gate: 'relu' is not known; choose one of prelu, gelu"),
        ({'heads': 3}, 'heads: 3 does not divide the 8 channels; try 1'),
        ({'mam_heads': 3}, 'heads of the MAM: 3 does not divide the 8 channels; 1 always does'),
        ({'mam_heads': 0}, 'heads of the MAM: 0 does not divide the 8 channels'),
        ({'width': 9, 'heads': 1}, 'width: 9 is odd.*try 10'),
        ({'reduction': 9}, 'reduction: 9 leaves no hidden channel of 8; take one between 1 and 8'),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(arguments, words):
    with pytest.raises(ValueError, match=words):
        tiny(**arguments)
