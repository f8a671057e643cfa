"""DDSANet as spandrel loads it: from the tensors of a file alone."""

import itertools
import sys

import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY

from ddsa_arch.archs.ddsanet_arch import DDSANet
from ddsa_arch.archs.weights import load_weights, write_weights
from ddsa_arch.errors import InputError
from ddsa_arch.integrations.spandrel import ID, arguments_of, install
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


@pytest.mark.parametrize('changed', VARIANTS, ids=str)
def test_the_arguments_are_read_from_names_and_shapes(changed):
    assert arguments_of(shapes(**TINY | changed)) == DEFAULTS | TINY | changed


@pytest.mark.parametrize('dim', [8, 32, 48])
@pytest.mark.parametrize('expansion', [0.1, 1, 1.5, 2, 2.5, 2.66, 3, 4, 6.125])
def test_some_expansion_with_the_same_hidden_widths_is_found(dim, expansion):
    state = shapes(**TINY | {'dim': dim, 'expansion': expansion})
    found = arguments_of(state)
    assert {k: v.shape for k, v in shapes(**found).items()} == {k: v.shape for k, v in state.items()}


def test_what_weights_do_not_tell_is_assumed():
    unseen = {'keep_ratio': 0.5, 'mask_fill': 'zero', 'attention': 'sparse', 'scale': 'sqrt_d', 'heads': [2] * 5}
    assert arguments_of(shapes(**TINY | unseen)) == DEFAULTS | TINY | {'attention': 'dense', 'scale': 'sqrt_d'}


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
    assert [support.architecture.id for support in before] == [ID]


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
