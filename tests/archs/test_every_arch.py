"""What holds for every network of the registry that is ours."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from ddsa_arch.archs.cards import CARDS
from ddsa_arch.archs.complexity import complexity
from ddsa_arch.archs.nerdrain_arch import NeighbourhoodLinear
from ddsa_arch.fast import accelerate, plain
from ddsa_arch.models.restore import final_output, restore, to_uint8

SMALL = yaml.safe_load((Path(__file__).parents[1] / 'small_networks.yml').read_text(encoding='utf-8'))
NETWORKS = sorted(
    name for name, part in ARCH_REGISTRY if part.__module__.startswith('ddsa_arch.') and hasattr(part, 'size_multiple')
)
CORE = ('DDSANet', 'PRN_r')
UNUSED = 'stands in the published weights; the published network does not use it'
CANCELLED = 'the norm that follows takes every bias away'
BEHIND_ARGMAX = 'no gradient passes the choice of a label'
ONE_GROUP = 'a softmax over one group is always 1'
DERAIN = [
    'batchnorm20.', 'batchnorm1.', *(f'dense{s}.conv{level}1.' for s in (0, 1, 2) for level in (2, 3, 4, 5, 6)),
    *(f'dense{s}.{name}.' for s in (1, 2) for name in ('conv_refin', 'refine3', 'batchnorm20', 'batchnorm1')),
]  # fmt: skip
RESIDUAL = [
    'batchnorm20.', 'batchnorm1.', *(f'{kind}_block{level}.' for kind in ('dense', 'trans') for level in range(1, 7)),
    *(f'dense{s}.{name}.' for s in (1, 2) for name in (
        'conv_refin', 'refine3', 'batchnorm20', 'batchnorm1', 'conv1010', 'conv1020', 'conv1030', 'conv1040')),
]  # fmt: skip
WITHOUT_GRADIENT = {  # beginnings of names: why
    'DGUNet': {'basic.concat12.': UNUSED},
    'UMRL': dict.fromkeys(('batchnorm20.', 'batchnorm1.', 'conf_res.conv_refin.'), UNUSED),
    'DIDMDN': dict.fromkeys(DERAIN, UNUSED),
    'DIDMDNResidual': dict.fromkeys(RESIDUAL, UNUSED),
    'DIDMDNChain': {'residual.': BEHIND_ARGMAX, 'classifier.': BEHIND_ARGMAX}
    | dict.fromkeys((f'derain.{name}' for name in DERAIN), UNUSED),
    'SEMI': {'labelled.biases.': CANCELLED},
    'IDT': {f'{block}.attn.{name}': 'a single window has nobody to attend to (64 x 64 alone)'
            for block in ('encoderlayer_3.blocks.1', 'decoderlayer_0.blocks.1')
            for name in ('relative_position_bias_table', 'qkv.to_q')},
    'NeRDRain': {'reduce_chan_level1_max3.': UNUSED},
    'SFHformer': {f'layer{level}.blocks.0.mixer.mixer_gloal.FFC.weight.': ONE_GROUP for level in (1, 2, 3, 8, 9)},
}  # fmt: skip
NUDGED = {  # ends of names of parameters that multiply a branch and begin at 0, so that it learns nothing at first
    'ConvIR': ('.lamb_l', '.lamb_h', '.inside_all', '.gamma'),
    'NAFNet': ('.beta', '.gamma'),
    'SFHformer': ('.beta', '.gamma'),
}
NOT_CALLED = {  # leaves that no forward calls, beside those that nothing uses: why
    'SEMI': {'labelled.': 'lists of parameters'},
    'Uformer': {'decoderlayer_': 'the modulator lends its table, as in the published network'},
}
NOT_TRACED = {  # by torch.fx: why
    'DIDMDN': 'checks the label that it is given',
    'DIDMDNResidual': 'checks the label that it is given',
    'DIDMDNChain': 'chooses a label by what its classifier says',
    'IDT': 'refuses other sizes than its own',
    'MSPFN': 'pads by whether a side is odd',
    'SEMI': 'tells by the number of channels what it is given',
    'Uformer': 'tells its windows and their masks by the size of the image',
}


def build(name):
    torch.manual_seed(0)
    net = ARCH_REGISTRY.get(name)(**SMALL.get(name, {}))
    for key, parameter in net.named_parameters():
        if key.endswith(NUDGED.get(name, ())):
            nn.init.uniform_(parameter, 0.1, 0.3)
    return net


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.core) if name in CORE else name for name in NETWORKS])
def net(request):
    return build(request.param)


@pytest.fixture
def accelerated(net):
    """Each network in its fast form; of the plain one PyTorch itself sees to what follows."""
    accelerate(net)
    return net


@pytest.fixture(params=[False, True], ids=['as built', 'accelerated'])
def network(net, request):
    """Each network twice."""
    if request.param:
        accelerate(net)
    return net


@torch.no_grad()
def run(net, x):
    return final_output(net(x))


def leaves(net):
    return {name: module for name, module in net.named_modules() if not [*module.children()]}


def test_the_registry_holds_every_network_of_the_comparison_and_the_parts_of_the_papers():
    known = set(ARCH_REGISTRY.keys())
    assert {card.network for card in CARDS} <= known
    assert {'DDSA', 'SEFN', 'MAM', 'HFN'} <= known
    assert set(SMALL) <= known
    assert set(NETWORKS) <= {card.network for card in CARDS} | {'DIDMDNResidual', 'DIDMDNChain'}


def test_shape_is_kept_and_the_last_output_is_the_final_image(net):
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        outputs = net.eval()(x)
    assert final_output(outputs).shape == x.shape
    assert torch.equal(restore(net, x), final_output(outputs))
    for output in outputs if isinstance(outputs, list) else [outputs]:
        assert output.shape[:2] == (1, 3)
        assert output.isfinite().all()


@pytest.mark.parametrize('size', [(1, 1), (1, 30), (37, 53), (8, 8)])
def test_any_size_is_restored_through_padding(net, size):
    x = torch.rand(1, 3, *size)
    out = restore(net, x)
    assert out.shape == x.shape
    assert out.isfinite().all()


def test_every_parameter_learns_or_has_a_reason(net):
    outputs = net.train()(torch.rand(2, 3, 64, 64))
    # squares, as the mean of what instance norm gives does not depend on its scale
    sum((o * o).mean() for o in (outputs if isinstance(outputs, list) else [outputs])).backward()
    reasons = tuple(WITHOUT_GRADIENT.get(type(net).__name__, ()))
    still = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert [n for n in still if not n.startswith(reasons)] == []
    assert [r for r in reasons if not any(n.startswith(r) for n in still)] == []


def test_what_the_network_never_uses_is_frozen(net):
    """Else several processes would wait for its gradient."""
    reasons = WITHOUT_GRADIENT.get(type(net).__name__, {})
    unused = tuple(name for name, why in reasons.items() if why in (UNUSED, BEHIND_ARGMAX, CANCELLED, ONE_GROUP))
    frozen = [n for n, p in net.named_parameters() if not p.requires_grad]
    assert [n for n in frozen if not n.startswith(unused)] == []
    assert [n for n, p in net.named_parameters() if unused and n.startswith(unused) and p.requires_grad] == []


def test_state_dict_survives_a_round_trip(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / 'net.pth')
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = final_output(net.eval()(x))
        for tensor in [*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())]:
            tensor.zero_()
        net.load_state_dict(torch.load(tmp_path / 'net.pth', weights_only=True), strict=True)
        assert torch.equal(final_output(net(x)), before)


def test_an_image_depends_neither_on_its_neighbours_in_the_batch_nor_on_earlier_calls(net):
    net.eval().double()
    x = torch.rand(3, 3, 64, 64, dtype=torch.float64)
    together, alone, again = restore(net, x), restore(net, x[1:2]), restore(net, x)
    assert (together[1:2] - alone).abs().max() < 1e-10
    assert torch.equal(together, again)


def test_an_image_does_not_depend_on_the_memory_layout(net):
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    wanted = run(net.eval().double(), x)
    net.to(memory_format=torch.channels_last)
    found = run(net, x.to(memory_format=torch.channels_last))
    assert (found - wanted).abs().max() <= 1e-11 * max(1, wanted.abs().max())


@pytest.mark.parametrize('name', [pytest.param(n, marks=() if n in CORE else pytest.mark.slow) for n in NETWORKS])
def test_the_network_can_be_exported(name):
    net = build(name)
    x = torch.rand(1, 3, 64, 64)
    exported = torch.export.export(net.eval(), (x,)).module()
    with torch.no_grad():
        assert torch.allclose(final_output(exported(x)), final_output(net(x)), rtol=1e-4, atol=1e-5)


def test_mixed_precision_is_near_float32_and_its_gradients_are_finite(net):
    x = torch.rand(2, 3, 64, 64)
    with torch.autocast('cpu', torch.bfloat16):
        rounded = run(net.eval(), x)
    exact = run(net, x)
    with torch.autocast('cpu', torch.bfloat16):
        outputs = net.train()(x)
    assert rounded.dtype == torch.float32  # the image is added in the precision of the input
    assert 0 < (rounded - exact).abs().max() < 0.05 * max(1, exact.abs().max())
    sum(o.float().mean() for o in (outputs if isinstance(outputs, list) else [outputs])).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


# --- what hooks, counters, adapters and tracers see ----------------------------------------------------------


@pytest.mark.parametrize('training', [False, True])
def test_hooks_on_every_leaf_fire(network, training):
    fired, name = set(), type(network).__name__
    for leaf, module in leaves(network).items():
        module.register_forward_hook(lambda module, inputs, output, leaf=leaf: fired.add(leaf))
    with torch.set_grad_enabled(training):
        network.train(training)(torch.rand(2, 3, 64, 64))
    reasons = WITHOUT_GRADIENT.get(name, {}) | NOT_CALLED.get(name, {})
    reasons = tuple(r for r, why in reasons.items() if why not in (BEHIND_ARGMAX, CANCELLED))
    # a name ends with its parameter there
    silent = [leaf for leaf in leaves(network) if leaf not in fired and not f'{leaf}.'.startswith(reasons)]
    if name == 'DIDMDNChain':  # its parts have unused layers of their own
        parts = tuple(f'residual.{r}' for r in RESIDUAL)
        silent = [leaf for leaf in silent if not f'{leaf}.'.startswith(parts)]
    assert silent == []


def test_multiply_adds_counted_by_hooks_are_those_of_complexity(accelerated):
    network = accelerated
    counted = []

    def count(module, inputs, output):
        weight = module.weight
        pixels = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        if isinstance(module, NeighbourhoodLinear):  # zeros and constants are not multiplied
            counted.append(pixels.numel() * 9 * module.dim)
        else:
            counted.append(pixels.numel() * (weight[0].numel() if weight.ndim == 4 else module.in_features))

    handles = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))
    ]
    run(network.eval(), torch.zeros(1, 3, 64, 64))
    for handle in handles:
        handle.remove()
    assert sum(counted) == complexity(network, 64, 64).weighed_macs


class Louder(nn.Module):
    """An adapter around a layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x) * 1.25


def test_a_replaced_layer_counts_in_inference_as_in_training(accelerated):
    network = accelerated
    network.eval()
    x = torch.rand(1, 3, 64, 64)
    before, used = run(network, x), []
    watched = copy.deepcopy(network)
    for name, module in watched.named_modules():
        if type(module) in (nn.Conv2d, nn.ConvTranspose2d, nn.Linear):
            module.register_forward_hook(lambda module, inputs, output, name=name: used.append(name))
    run(watched, x)
    places, changed = list(dict.fromkeys(used)), 0
    for place in places[:: max(1, len(places) // 6)]:
        adapted = copy.deepcopy(network)
        parent, _, child = place.rpartition('.')
        setattr(adapted.get_submodule(parent), child, Louder(adapted.get_submodule(place)))
        scored, trained = run(adapted, x), final_output(adapted(x)).detach()
        assert (scored - trained).abs().max() <= 1e-5 * max(1, trained.abs().max()), place
        changed += bool((scored - before).abs().max() > 1e-6)
    assert changed >= 3  # the scale of some is taken away by a norm


def test_torch_fx_traces_the_network_or_a_reason_stands_here(network):
    x = torch.rand(1, 3, 64, 64)
    if type(network).__name__ in NOT_TRACED:
        with pytest.raises(torch.fx.proxy.TraceError):
            torch.fx.symbolic_trace(network.eval())
        return
    traced = torch.fx.symbolic_trace(network.eval())
    assert (run(traced, x) - run(network, x)).abs().max() <= 1e-5


def test_two_networks_share_no_parameter(net):
    """Some share a slope among their own blocks."""
    places = [{p.data_ptr() for p in one.parameters()} for one in (net, build(type(net).__name__))]
    assert places[0].isdisjoint(places[1])


def test_copies_and_pickles_are_the_network(accelerated):
    network = accelerated
    x = torch.rand(1, 3, 64, 64)
    wanted = run(network.eval(), x)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(run(other, x), wanted)
        assert [type(m) for m in other.modules()] == [type(m) for m in network.modules()]
        assert other.state_dict().keys() == network.state_dict().keys()
        assert len([*other.parameters()]) == len([*network.parameters()])  # a shared one counts once


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_an_accelerated_network_gives_the_same(net, dtype, tolerance):
    net.eval().to(dtype)
    x, state = torch.rand(2, 3, 64, 64, dtype=dtype), net.state_dict()
    wanted, kinds = run(net, x), [type(m) for m in net.modules()]
    accelerate(net)
    assert (run(net, x) - wanted).abs().max() <= tolerance * max(1, wanted.abs().max())
    assert all(value.data_ptr() == state[key].data_ptr() for key, value in net.state_dict().items())
    assert [type(m) for m in plain(net).modules()] == kinds
    assert torch.equal(run(net, x), wanted)


@pytest.mark.parametrize(
    'name', ['DDSANet', *(pytest.param(n, marks=pytest.mark.slow) for n in ('DRSformer', 'ELF', 'UMRL'))]
)
def test_threads_with_one_network_or_two_never_meet(name):
    """Beside eight threads that derain, others count, copy and accelerate the networks, and toggle a third one."""
    nets = [build(name).eval(), build('Restormer').eval()]
    toggled = build(name).eval()
    for net in nets:
        accelerate(net)
    images = [torch.rand(1, 3, height, 40, generator=torch.Generator().manual_seed(height)) for height in (33, 48, 64)]
    wanted = [[to_uint8(restore(net, image)) for image in images] for net in nets]
    near = [run(toggled, torch.nn.functional.pad(image, (0, 24, 0, 64 - image.shape[2]))) for image in images]
    over = threading.Event()

    def derain(place):
        net, pictures = nets[place % 2], wanted[place % 2]
        return all(
            (to_uint8(restore(net, image)) == picture).all()
            for _ in range(4) for image, picture in zip(images, pictures, strict=True)
        )  # fmt: skip

    def disturb(deed):
        while not over.is_set():
            deed()
        return True

    def toggle():
        accelerate(toggled)
        plain(toggled)

    def count():
        complexity(nets[0], 64, 64)

    def duplicate():
        accelerate(copy.deepcopy(nets[1]))

    def derain_the_toggled():
        for image, result in zip(images, near, strict=True):
            found = run(toggled, torch.nn.functional.pad(image, (0, 24, 0, 64 - image.shape[2])))
            assert (found - result).abs().max() <= 1e-5

    with ThreadPoolExecutor(12) as pool:
        others = [pool.submit(disturb, deed) for deed in (toggle, count, duplicate, derain_the_toggled)]
        results = list(pool.map(derain, range(8)))
        over.set()
        assert all(results)
        assert all(other.result() for other in others)
