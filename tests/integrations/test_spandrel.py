"""DDSANet as spandrel loads it: from the tensors of a file alone."""

import inspect
import itertools
import sys

import pytest
import safetensors.torch
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from helpers import SMALL

from ddsa_arch.archs.ddsanet_arch import DDSANet
from ddsa_arch.archs.weight_names import MARKER, UNSEEN, as_tensor
from ddsa_arch.archs.weights import load_weights, write_weights
from ddsa_arch.errors import InputError
from ddsa_arch.integrations.spandrel import ID, arguments_of, install
from ddsa_arch.integrations.spandrel_zoo import KEYS, networks, published_shapes, section_of
from ddsa_arch.models.restore import restore

spandrel = pytest.importorskip('spandrel')

TINY = {'dim': 8, 'blocks': [1, 1, 1, 1, 1]}
DEFAULTS = {
    'in_channels': 3, 'heads': [1, 1, 2, 4, 8], 'attention': 'dual', 'scale': 'temperature', 'ffn': 'msfn',
    'spatial_attention': True, 'expansion': 2.66, 'norm_bias': True, 'bias': False,
}  # fmt: skip
VARIANTS = [
    *(
        dict(zip(('ffn', 'spatial_attention', 'norm_bias', 'bias'), values, strict=True))
        for values in itertools.product(('msfn', 'gdfn'), (True, False), (True, False), (True, False))
    ),
    {'in_channels': 1},
    {'dim': 2},
    {'dim': 26, 'heads': [1, 13, 2, 26, 4]},
    {'heads': [8, 4, 2, 1, 64]},
    {'blocks': [3, 1, 2, 1, 4]},
    {'blocks': [0, 0, 2, 0, 1], 'heads': [1, 1, 8, 4, 16]},
    {'attention': 'dense'},
    {'attention': 'dense', 'scale': 'sqrt_d'},
    {'scale': 'sqrt_d', 'bias': True},
]


@pytest.fixture(scope='module')
def registry():
    """spandrel's own networks and ours."""
    registry = spandrel.MAIN_REGISTRY.copy()
    install(registry)
    return registry


def network(**arguments):
    """With norms, temperatures and branches of its own, and an output that differs from its input."""
    torch.manual_seed(0)
    net = DDSANet(**TINY | arguments).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def shapes(**arguments):
    with torch.device('meta'):
        return DDSANet(**arguments).state_dict()


def state_of(**arguments):
    """With values, as the unseen arguments are read from those of a buffer."""
    return DDSANet(**TINY | arguments).state_dict()


UNSEEN_DEFAULTS = {'keep_ratio', 'mask_fill'}


@pytest.mark.parametrize('changed', VARIANTS, ids=str)
def test_the_arguments_are_read_from_names_and_shapes(changed):
    found = arguments_of(state_of(**changed))
    assert {k: v for k, v in found.items() if k not in UNSEEN_DEFAULTS} == DEFAULTS | TINY | changed


@pytest.mark.parametrize('dim', [8, 32, 48])
@pytest.mark.parametrize('expansion', [0.1, 1, 1.5, 2, 2.5, 2.66, 3, 4, 6.125])
def test_some_expansion_with_the_same_hidden_widths_is_found(dim, expansion):
    state = shapes(**TINY | {'dim': dim, 'expansion': expansion})
    found = arguments_of(state)
    assert {k: v.shape for k, v in shapes(**found).items()} == {k: v.shape for k, v in state.items()}


VARIED = [
    {}, {'in_channels': 1}, {'dim': 16}, {'blocks': [2, 1, 1, 1, 2]}, {'heads': [2, 4, 4, 2, 8]}, {'keep_ratio': 0.3},
    {'attention': 'dense'}, {'attention': 'sparse'}, {'scale': 'sqrt_d'}, {'mask_fill': 'zero'}, {'ffn': 'gdfn'},
    {'spatial_attention': False}, {'expansion': 4.0}, {'norm_bias': False}, {'bias': True},
    {'attention': 'sparse', 'scale': 'sqrt_d', 'heads': [2, 2, 2, 2, 2], 'keep_ratio': 0.5, 'mask_fill': 'zero'},
]  # fmt: skip


def test_every_argument_is_varied():
    assert {name for one in VARIED for name in one} == set(inspect.signature(DDSANet).parameters)


def plain(value):
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize('changed', VARIED, ids=str)
def test_every_argument_is_detected_and_gives_equal_outputs(changed, registry, tmp_path):
    """What spandrel's own assert_loads_correctly checks: each network, its state dict and its safetensors, detected."""
    net = network(**changed)
    defaults = {name: plain(one.default) for name, one in inspect.signature(DDSANet).parameters.items()}
    arguments = {**defaults, **TINY, **changed}
    state, section = net.state_dict(), {'type': 'DDSANet', **TINY, **changed}
    torch.save({'params': state, 'network_g': section}, tmp_path / 'trained.pth')
    write_weights(tmp_path / 'exported.safetensors', state, section, {})
    loader = spandrel.ModelLoader(registry=registry)
    x = torch.rand(1, arguments['in_channels'], 32, 40, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = net(x).clamp(0, 1)
    for loaded in (
        registry.load(state),
        registry.load(safetensors.torch.load(safetensors.torch.save(state))),
        loader.load_from_file(tmp_path / 'trained.pth'),
        loader.load_from_file(tmp_path / 'exported.safetensors'),
    ):
        assert loaded.architecture.id == ID
        with torch.no_grad():
            assert (loaded(x) - wanted).abs().max() <= 3e-4  # wrong arguments: up to 0.8
    assert registry[ID].detect(state)
    found = {**defaults, **arguments_of(state)}
    assert {name: found[name] for name in found if name != 'expansion'} == {
        name: value for name, value in arguments.items() if name != 'expansion'
    }


def old_state(**arguments):
    """As it was before networks had a buffer of unseen arguments."""
    return {k: v for k, v in network(**arguments).state_dict().items() if k != UNSEEN}


@pytest.mark.parametrize('changed', [{'attention': 'dense'}, {'attention': 'sparse'}, {'scale': 'sqrt_d'}], ids=str)
def test_what_cannot_be_told_is_refused_and_not_guessed(changed, registry, tmp_path):
    with pytest.raises(InputError, match=r'do not tell its arguments .*ddsa export'):
        registry.load(old_state(**changed))
    section = {'type': 'DDSANet', **TINY, **changed}
    torch.save({'params': old_state(**changed), 'network_g': section}, tmp_path / 'old.pth')
    loaded = spandrel.ModelLoader(registry=registry).load_from_file(tmp_path / 'old.pth')  # the file tells it
    x = torch.rand(1, 3, 32, 40)
    with torch.no_grad():
        assert (loaded(x) - network(**changed)(x).clamp(0, 1)).abs().max() <= 3e-4


def test_a_file_that_tells_a_falsehood_is_refused(registry):
    for told in ({'dim': 16}, {'blocks': [10**6, 1, 1, 1, 1]}, {'ffn': 'gdfn'}, {'attention': 'other'}, {'nothing': 1}):
        state = network().state_dict() | {MARKER: as_tensor({'type': 'DDSANet', **TINY, **told})}
        with pytest.raises(InputError, match='do not go with the arguments'):
            registry.load(state)


# --- the networks that it is compared with -----------------------------------------------------------------


@pytest.mark.parametrize('name', sorted(KEYS))
def test_published_weights_of_each_network_are_known(name):
    """By exactly one architecture, and with the published arguments."""
    for known in networks()[name]:
        shapes = published_shapes(known)
        assert KEYS[name] in shapes
        state = {key: torch.empty(shape, device='meta') for key, shape in shapes.items()}
        found = {other: section_of(state, other) for other in KEYS if other == name or KEYS[other] in state}
        assert {other for other, section in found.items() if section} == {name}
        assert found[name] == known.section
        assert arguments_of(state) is None
        assert not section_of(state | {'more': torch.zeros(1)}, name)


@pytest.mark.parametrize('name', ['PReNet', 'PReNet_r', 'RESCAN', 'MPRNet', 'Restormer', 'SEMI', 'DerainNet', 'IDT'])
def test_a_network_of_other_sizes_is_told_by_its_exported_file(name, registry, tmp_path):
    section = {'type': name, **SMALL[name]}
    torch.manual_seed(0)
    net = ARCH_REGISTRY.get(name)(**SMALL[name]).eval()
    write_weights(tmp_path / 'w.safetensors', net.state_dict(), section, {})
    loaded = registry.load(safetensors.torch.load_file(tmp_path / 'w.safetensors'))  # the tensors alone
    assert loaded.architecture.name == name
    x = torch.rand(1, 3, 37, 50)
    assert (loaded(x) - restore(net, x).clamp(0, 1)).abs().max() <= 1e-5
    load_weights(ARCH_REGISTRY.get(name)(**SMALL[name]), tmp_path / 'w.safetensors')
    with pytest.raises(spandrel.UnsupportedModelError):
        registry.load(net.state_dict())


def test_the_others_do_not_clash_with_extra_networks_of_spandrel(registry):
    ours = [support.architecture.id for support in registry if support.architecture.id.startswith('ddsa_arch.')]
    assert len(ours) == len(KEYS)
    assert 'Restormer' not in registry
    assert 'Uformer' in registry  # spandrel's own


@pytest.mark.parametrize('name', ['ours.pth', 'ours.safetensors', 'half.safetensors', 'ema.pth', 'plain.pth'])
def test_a_weight_file_is_loaded_and_gives_the_same_output(name, registry, tmp_path):
    net, path = network(ffn='gdfn', norm_bias=False), tmp_path / name
    if name == 'ema.pth':
        torch.save({'params': DDSANet(**TINY).state_dict(), 'params_ema': net.state_dict()}, path)
    elif name == 'plain.pth':
        torch.save({f'module.{key}': value for key, value in net.state_dict().items()}, path)
    else:
        write_weights(path, net.state_dict(), {'type': 'DDSANet'}, {}, half=name.startswith('half'))
    descriptor = spandrel.ModelLoader(registry=registry).load_from_file(path)
    assert isinstance(descriptor, spandrel.ImageModelDescriptor)
    assert descriptor.architecture.id == ID
    assert {parameter.dtype for parameter in descriptor.model.parameters()} == {torch.float32}
    load_weights(net, path)
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))  # no two scores of it nearly tie
    with torch.no_grad():
        assert (descriptor(x) - net(x).clamp(0, 1)).abs().max() <= 1e-5  # the descriptor's runs fast
        assert (descriptor.model(x) - net(x)).abs().max() <= 1e-5


def test_the_descriptor_says_what_the_network_takes_and_gives(registry):
    descriptor = registry.load(network().state_dict())
    assert (descriptor.purpose, descriptor.scale) == ('Restoration', 1)
    assert (descriptor.input_channels, descriptor.output_channels) == (3, 3)
    assert descriptor.size_requirements == spandrel.SizeRequirements(multiple_of=8)
    assert descriptor.tiling is spandrel.ModelTiling.SUPPORTED
    assert descriptor.tags == ['8dim', '5 blocks', 'dual']
    assert (descriptor.supports_half, descriptor.supports_bfloat16) == (False, True)
    with pytest.raises(spandrel.UnsupportedDtypeError):
        descriptor.half()
    assert registry.load(network(in_channels=1).state_dict()).output_channels == 1


@pytest.mark.parametrize('size', [(37, 53), (8, 8), (9, 5), (1, 1)])
def test_any_size_is_padded(size, registry):
    net = network()
    x = torch.rand(1, 3, *size)
    out = registry.load(net.state_dict())(x)
    assert out.shape == x.shape
    assert out.min() >= 0
    assert out.max() <= 1
    if min(size) > 8:
        assert (out - restore(net, x).clamp(0, 1)).abs().max() <= 1e-5


@pytest.mark.parametrize('norm_bias', [True, False])
@pytest.mark.parametrize('scale', ['temperature', 'sqrt_d'])
def test_weights_of_bfloat16_serve_too(norm_bias, scale, registry):
    net = network(norm_bias=norm_bias, scale=scale, bias=True)
    x = torch.rand(1, 3, 40, 64)
    with torch.no_grad():
        wanted = net(x).clamp(0, 1)
    out = registry.load(net.state_dict()).bfloat16()(x.bfloat16())
    assert out.dtype == torch.bfloat16
    assert (out.float() - wanted).abs().mean() < 0.02


def test_spandrels_own_loader_takes_it(tmp_path):
    write_weights(tmp_path / 'w.safetensors', network().state_dict(), {'type': 'DDSANet'}, {})
    install()
    descriptor = spandrel.ModelLoader().load_from_file(tmp_path / 'w.safetensors')
    assert descriptor.architecture.id == ID


def test_installing_twice_is_once():
    registry = spandrel.ArchRegistry()
    install(registry)
    before = registry.architectures()
    install(registry)
    assert registry.architectures() == before
    assert before[0].architecture.id == ID
    assert len(before) == 1 + len(KEYS)


def test_ours_is_asked_first_and_takes_nothing_from_the_others(registry):
    assert registry.architectures('detection')[0].architecture.id == ID
    compact = ARCH_REGISTRY.get('SRVGGNetCompact')(num_feat=8, num_conv=2, upscale=1).state_dict()
    assert registry.load(compact).architecture.id == 'Compact'


@pytest.mark.parametrize('name', ['Restormer', 'DRSformer', 'MPRNet', 'PReNet', 'EDSR'])
def test_weights_of_another_network_are_not_claimed(name, registry):
    arguments = {'num_in_ch': 3, 'num_out_ch': 3} if name == 'EDSR' else {}
    with torch.device('meta'):
        state = ARCH_REGISTRY.get(name)(**arguments).state_dict()
    assert not registry[ID].detect(state)


def test_weights_that_only_resemble_ours_are_not_claimed(registry):
    detect = registry[ID].detect
    state = shapes(**TINY)
    assert detect(state)
    name = 'encoder1.0.attention.to_qkv.weight'
    others = [
        {},
        {'weight': torch.zeros(3, 4)},
        {'embed.weight': torch.zeros(4)},
        {'embed.weight': torch.zeros(0, 3, 3, 3)},
        {'embed.weight': torch.zeros(8, 3, 3, 3), 'encoder0.0.norm1.weight': torch.zeros(8)},
        state | {'embed.weight': 'a string'},
        state | {'more.weight': torch.zeros(1)},
        state | {'iteration': 3},
        state | {name: torch.zeros(12, 8, 1, 1)},
        state | {'encoder0.0.attention.temperature': torch.zeros(0, 1, 1)},
        state | {'encoder0.0.attention.temperature': torch.zeros(3, 1, 1)},
        state | {'encoder0.0.feed_forward.project_out.weight': torch.zeros(8, 72, 1, 1)},
        {key: value for key, value in state.items() if key != name},
        {key: value for key, value in state.items() if not key.startswith('decoder0')},
        shapes(dim=8, blocks=[0, 0, 0, 0, 0]),
    ]
    assert [i for i, other in enumerate(others) if detect(other)] == []
    with pytest.raises(ValueError, match='not those of a DDSANet'):
        registry[ID].architecture.load(others[1])
    with pytest.raises(spandrel.UnsupportedModelError):
        registry.load({'weight': torch.zeros(3, 4)})


def test_without_spandrel_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'spandrel', None)
    with pytest.raises(InputError, match=r"pip install 'ddsa_arch\[spandrel\]'"):
        install()
