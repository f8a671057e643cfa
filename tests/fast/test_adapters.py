"""Layers that somebody replaces, wraps, prunes or watches count in inference as they do in training."""

import copy

import pytest
import torch
import torch.nn.utils.parametrize
import torch.nn.utils.prune
from torch import nn

from ddsa_arch.archs.ddsanet_arch import DATB, DDSA, SEFN, DDSANet
from ddsa_arch.archs.nerdrain_arch import NeRDRain
from ddsa_arch.fast import accelerate, plain
from ddsa_arch.models.restore import restore
from ddsa_arch.models.training_step import checkpoint_blocks


def tiny():
    torch.manual_seed(0)
    net = DDSANet(dim=8, blocks=(1, 1, 1, 1, 1))
    assert accelerate(net)
    return net


class LowRank(nn.Module):
    """A frozen convolution and a low-rank one beside it, as LoRA has them."""

    def __init__(self, conv, rank=2):
        super().__init__()
        self.conv = conv.requires_grad_(False)
        self.down = nn.Conv2d(conv.in_channels, rank, 1, bias=False)
        self.up = nn.Conv2d(rank, conv.out_channels, 1, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.conv(x) + self.up(self.down(x))


@pytest.mark.parametrize('accelerated_again', [False, True])
def test_adapters_that_were_trained_are_scored(accelerated_again):
    net = tiny().requires_grad_(False)
    rain, clean = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    untouched = (restore(net, rain) - clean).abs().mean().item()
    for module in net.modules():
        if isinstance(module, DDSA):
            module.to_qkv = LowRank(module.to_qkv)
    if accelerated_again:
        done = accelerate(net)
        assert set(done.kept.values()) == {'the 1x1 convolution of q, k, v is a LowRank'}
        assert list(done.fast.values()).count('SEFN') == 9
    optimiser = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=0.05)
    for _ in range(30):
        loss = (net(rain) - clean).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    trained = (net(rain) - clean).abs().mean().item()
    scored = (restore(net, rain) - clean).abs().mean().item()
    assert trained < untouched - 0.001
    assert scored == pytest.approx(trained, abs=1e-6)


def same_as_plain(net):
    """The output, if it is that of the paper's forward."""
    x = torch.rand(1, 3, 24, 40, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, wanted = net(x), plain(copy.deepcopy(net))(x)
    assert (found - wanted).abs().max() <= 1e-5
    return found


def block(net):
    return net.encoder1[0]


CHANGES = {
    'a pruned layer': lambda net: torch.nn.utils.prune.l1_unstructured(block(net).feed_forward.expand, 'weight', 0.5),
    'a parametrised layer': lambda net: torch.nn.utils.parametrize.register_parametrization(
        block(net).attention.project_out, 'weight', nn.Tanh()
    ),
    'a wider kernel': lambda net: setattr(net, 'output', nn.Conv2d(16, 3, 5, padding=2)),
    'a dilated depth-wise layer': lambda net: setattr(
        block(net).feed_forward, 'depthwise2', nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8)
    ),
    'other borders': lambda net: setattr(net.embed, 'padding_mode', 'reflect'),
    'a strided pair of layers': lambda net: setattr(
        net, 'down12', nn.Sequential(nn.Conv2d(8, 16, 2, stride=2), nn.Sigmoid())
    ),
    'another norm': lambda net: setattr(block(net), 'norm1', nn.GroupNorm(1, 8)),
    'no attention': lambda net: setattr(block(net), 'attention', nn.Identity()),
    'another order of blocks': lambda net: net.encoder1.append(nn.Conv2d(8, 8, 1)),
    'a block of another kind': lambda net: net.decoder1.__setitem__(0, nn.Conv2d(16, 16, 3, padding=1)),
    'a forward of its own': lambda net: setattr(block(net).feed_forward, 'forward', lambda x: x * 2),
    'a map of its own': lambda net: setattr(block(net).attention, 'attention_map', lambda p: p),
    'a hook that changes what passes': lambda net: block(net).attention.to_qkv.register_forward_hook(
        lambda module, inputs, output: output * 2
    ),
    'a hook on the inputs of a block': lambda net: block(net).register_forward_pre_hook(
        lambda module, inputs: (inputs[0] * 2,)
    ),
    'a hook on a level': lambda net: net.encoder2.register_forward_hook(lambda module, inputs, output: output * 2),
    'weights of a half': lambda net: block(net).attention.project_out.weight.data.mul_(0.5),
}  # fmt: skip


@pytest.mark.parametrize('change', CHANGES)
def test_whatever_is_changed_changes_inference(change):
    net = tiny().eval()
    before = same_as_plain(net)
    CHANGES[change](net)
    assert (same_as_plain(net) - before).abs().max() > 1e-6
    accelerate(net)
    assert (same_as_plain(net) - before).abs().max() > 1e-6


WRAPPED = {  # layers of NeRD-Rain inside a wrapper, and how they are changed
    'a hook on the layer': lambda main: main.main[0].register_forward_hook(lambda module, inputs, output: output * 2),
    'a hook on the wrapper': lambda main: main.register_forward_hook(lambda module, inputs, output: output * 2),
    'a hook on the list': lambda main: main.main.register_forward_hook(lambda module, inputs, output: output * 2),
    'one more layer': lambda main: main.main.append(nn.Tanh()),
    'no layer': lambda main: setattr(main, 'main', nn.Sequential()),
    'another layer': lambda main: main.main.__setitem__(0, nn.Tanh()),
    'a forward of its own': lambda main: setattr(main, 'forward', lambda x: main.main(x) * 2),
}


@pytest.mark.parametrize('change', WRAPPED)
@pytest.mark.parametrize('place', ['attn.qkv_dwconv', 'ffn.dwconv'])
def test_a_layer_in_a_wrapper_is_taken_only_as_it_was_built(change, place):
    torch.manual_seed(0)
    net = NeRDRain(dim=8, num_blocks=[1, 1, 1]).encoder_level1_max1.eval()
    x = torch.rand(1, 8, 16, 24)
    assert accelerate(net).kept == {}
    with torch.no_grad():
        before = net(x)
        WRAPPED[change](net.get_submodule(f'0.{place}'))
        found, wanted = net(x), plain(copy.deepcopy(net))(x)
    assert (found - wanted).abs().max() <= 1e-5
    assert (found - before).abs().max() > 1e-6
    assert [*accelerate(net).kept] == [f'0.{place}'.rpartition('.')[0]]


def test_subclasses_and_lonely_parts_keep_their_forward():
    class Louder(DDSANet):
        def forward(self, rain):
            return super().forward(rain) * 2

    torch.manual_seed(0)
    net = Louder(dim=8, blocks=(1, 1, 1, 1, 1)).eval()
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        wanted = net(x)
        done = accelerate(net)
        assert done.kept == {'': 'Louder is a subclass of DDSANet'}
        assert 'as built: the network: Louder is a subclass of DDSANet' in str(done)
        assert (net(x) - wanted).abs().max() <= 1e-5
    assert type(net) is Louder


def test_hooks_for_all_modules_see_the_single_layers():
    net, seen = tiny().eval(), []
    handle = nn.modules.module.register_module_forward_hook(lambda module, inputs, output: seen.append(type(module)))
    try:
        with torch.no_grad():
            net(torch.rand(1, 3, 16, 16))
    finally:
        handle.remove()
    assert sum(issubclass(kind, DATB) for kind in seen) == sum(issubclass(kind, SEFN) for kind in seen) == 9
    assert seen.count(nn.Conv2d) == sum(isinstance(m, nn.Conv2d) for m in net.modules())


def test_a_hook_that_is_removed_gives_the_fast_form_back():
    net = tiny().eval()
    handle = block(net).attention.to_qkv.register_forward_hook(lambda *_: None)
    done = accelerate(net)
    assert done.kept == {'encoder1.0.attention': 'the 1x1 convolution of q, k, v has hooks or a forward of its own'}
    handle.remove()
    assert accelerate(net).kept == {}


def test_blocks_that_compute_their_activations_anew_count_too():
    net = tiny()
    checkpoint_blocks(net)
    x = torch.rand(1, 3, 24, 40)
    with torch.no_grad():
        found = net(x)
    assert (found - net(x)).abs().max() <= 1e-5
    assert (found - tiny()(x)).abs().max() <= 1e-5


def test_a_network_without_fast_parts_says_so():
    done = accelerate(nn.Conv2d(3, 3, 3))
    assert not done
    assert str(done) == 'no part of this network has a fast form'
