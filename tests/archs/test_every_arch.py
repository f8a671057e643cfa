"""What holds for every network of the registry that is ours."""

from pathlib import Path

import pytest
import torch
import yaml
from basicsr.utils.registry import ARCH_REGISTRY

from ddsa_arch.archs.cards import CARDS
from ddsa_arch.models.restore import final_output, restore

SMALL = yaml.safe_load((Path(__file__).parents[1] / 'small_networks.yml').read_text(encoding='utf-8'))
NETWORKS = sorted(
    name for name, part in ARCH_REGISTRY if part.__module__.startswith('ddsa_arch.') and hasattr(part, 'size_multiple')
)
UNUSED = 'stands in the published weights; the published network does not use it'
CANCELLED = 'the norm that follows takes every bias away'
BEHIND_ARGMAX = 'no gradient passes the choice of a label'
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
}  # fmt: skip


@pytest.fixture(params=NETWORKS)
def net(request):
    torch.manual_seed(0)
    return ARCH_REGISTRY.get(request.param)(**SMALL.get(request.param, {}))


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
    unused = tuple(name for name, why in reasons.items() if why in (UNUSED, BEHIND_ARGMAX, CANCELLED))
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


def test_an_image_does_not_depend_on_its_neighbours_in_the_batch(net):
    net.eval().double()
    x = torch.rand(3, 3, 64, 64, dtype=torch.float64)
    together = restore(net, x)
    assert (together[1:2] - restore(net, x[1:2])).abs().max() < 1e-10


def test_the_network_can_be_exported(net):
    x = torch.rand(1, 3, 64, 64)
    exported = torch.export.export(net.eval(), (x,)).module()
    with torch.no_grad():
        assert torch.allclose(final_output(exported(x)), final_output(net(x)), rtol=1e-4, atol=1e-5)


def test_mixed_precision_gives_finite_images_and_gradients(net):
    with torch.autocast('cpu', torch.bfloat16):
        outputs = net.train()(torch.rand(2, 3, 64, 64))
    sum(o.float().mean() for o in (outputs if isinstance(outputs, list) else [outputs])).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
