"""DGUNet and DGUNet+ against the outputs of the published networks, and the projection where it is ill-conditioned."""

import pytest
import torch

from ddsa_arch.archs.blocks import subspace
from ddsa_arch.archs.blocks.subspace import project
from ddsa_arch.archs.dgunet_arch import DGUNet, DGUNetPlus

KINDS = pytest.mark.parametrize('kind', [DGUNet, DGUNetPlus])
NAMES = [*(f'stage{k}' for k in range(1, 7)), 'stage7_final']


def published(net, x):
    return dict(zip(NAMES, net(x), strict=True))


def tiny(kind, **changes):
    torch.manual_seed(0)
    # no reduction: of two hidden channels of an attention, both would often be dead
    return kind(**({'n_feat': 8, 'scale_unetfeats': 4, 'depth': 1, 'reduction': 1} | changes))


@pytest.mark.parametrize(('stem', 'kind'), [('dgunet', DGUNet), ('dgunet_plus', DGUNetPlus)])
def test_the_published_outputs_are_reached(golden, stem, kind):
    golden(stem).check(kind(), published, run='gain0p7')


@pytest.mark.slow
@pytest.mark.parametrize(('stem', 'kind'), [('dgunet', DGUNet), ('dgunet_plus', DGUNetPlus)])
def test_the_published_outputs_are_reached_where_they_grow_to_thousands(golden, stem, kind):
    golden(stem).check(kind(), published, run='plain', float32=False)


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
def test_basis_images_that_depend_on_each_other_project_onto_what_they_span(dtype, tolerance):
    x, v = torch.randn(2, 5, 8, 8, dtype=dtype), torch.randn(2, 4, 8, 8, dtype=dtype)
    dependent = torch.cat([v, -2 * v, v[:, :1] + v[:, 1:2], torch.zeros_like(v[:, :1])], dim=1).requires_grad_()
    projected = project(x, dependent)
    assert (projected - project(x, v)).abs().max() < tolerance
    projected.square().sum().backward()
    assert dependent.grad.isfinite().all()


def test_a_basis_of_zeros_projects_onto_zero():
    basis = torch.zeros(1, 4, 8, 8, requires_grad=True)
    projected = project(torch.rand(1, 3, 8, 8), basis)
    assert torch.equal(projected, torch.zeros(1, 3, 8, 8))
    projected.sum().backward()
    assert basis.grad.isfinite().all()


def test_a_dependent_basis_leaves_the_others_of_its_batch_as_they_are():
    x, v = torch.randn(2, 5, 8, 8), torch.randn(2, 4, 8, 8)
    v[1] = v[1, :1]
    assert torch.equal(project(x, v)[:1], project(x[:1], v[:1]))


@pytest.fixture
def gram_matrices(monkeypatch):
    """The Gram matrices that are solved from here on."""
    seen, solve = [], subspace.solve_gram
    monkeypatch.setattr(subspace, 'solve_gram', lambda gram, values: seen.append(gram) or solve(gram, values))
    return seen


@KINDS
def test_an_image_of_one_colour_is_restored_with_a_true_inverse(kind, gram_matrices):
    net = kind().eval()
    with torch.no_grad():
        for level in (0.0, 0.5, 1.0):
            x = torch.full((1, 3, 32, 32), level)
            outputs, exact = net(x), net.double()(x.double())
            net.float()
            for a, b in zip(outputs, exact, strict=True):
                assert (a - b).abs().max() < 1e-3
    assert torch.stack([torch.linalg.cond(gram.double()) for gram in gram_matrices]).max() < 1e6
    assert all((torch.linalg.cholesky_ex(gram).info == 0).all() for gram in gram_matrices)  # so there was no ridge


@KINDS
def test_the_inverse_is_taken_in_float32_under_mixed_precision(kind, gram_matrices):
    net = tiny(kind).eval()
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        exact = net(x)
        with torch.autocast('cpu', torch.bfloat16):
            rounded = net(x)
        net.double()(x.double())
    single, mixed, double = (gram_matrices[i * len(gram_matrices) // 3].dtype for i in range(3))
    assert (single, mixed, double) == (torch.float32, torch.float32, torch.float64)
    for a, b in zip(exact, rounded, strict=True):
        assert b.dtype == torch.float32
        assert 0 < (a - b).abs().max() < 0.1


def test_the_shared_stage_can_be_passed_any_number_of_times():
    nets = [tiny(DGUNet, depth=depth) for depth in (1, 3)]
    assert nets[0].state_dict().keys() == nets[1].state_dict().keys()
    assert [len(net(torch.rand(1, 3, 8, 8))) for net in nets] == [3, 5]


@KINDS
def test_steps_start_at_one_half(kind):
    net = kind()
    steps = {k: v.item() for k, v in net.named_parameters() if k.split('.')[-1] in {f'r{i}' for i in range(7)}}
    assert set(steps.values()) == {0.5}
    assert len(steps) == (3 if kind is DGUNet else 7)


@KINDS
@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'depth': 0}, 'depth: 0 leaves no stage between the first and the last'),
        ({'kernel_size': 2}, 'kernel_size: 2 cannot keep the size'),
        ({'reduction': 9}, 'reduction: 9 leaves no hidden channel of 8; take one between 1 and 8'),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(kind, arguments, words):
    with pytest.raises(ValueError, match=words):
        tiny(kind, **arguments)
