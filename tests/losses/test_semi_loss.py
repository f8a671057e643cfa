import copy
import math

import pytest
import torch
from basicsr.losses import build_loss
from torch._subclasses.fake_tensor import FakeTensorMode

from ddsa_arch.models.objectives import Objectives

SHAPE = (2, 3, 4, 5)


def build(**arguments):
    torch.manual_seed(0)
    return build_loss({'type': 'SEMILoss', 'epoch_steps': 0, **arguments}).double()


def drawn(seed, scale=0.2):
    """Residual of the photo, its output, output, target."""
    generator = torch.Generator().manual_seed(seed)
    residual, *images = (torch.rand(SHAPE, generator=generator, dtype=torch.float64) for _ in range(4))
    return [(residual - 0.5) * scale, *images]


def slow_e_step(values, weights, variances):
    rows = []
    for e in values:
        densities = [
            w * math.exp(-e * e / (2 * s)) / math.sqrt(2 * math.pi * s)
            for w, s in zip(weights, variances, strict=True)
        ]  # fmt: skip
        rows.append([d / sum(densities) for d in densities])
    return rows


def slow_step(values, weights, variances):
    """E, M and E again: R, w and S."""
    r = slow_e_step(values, weights, variances)
    components = range(len(weights))
    mass = [sum(row[k] for row in r) for k in components]
    variances = [sum(row[k] * e * e for row, e in zip(r, values, strict=True)) / mass[k] + 1e-6 for k in components]
    weights = [m / len(values) for m in mass]
    return slow_e_step(values, weights, variances), weights, variances


def slow_total(residual, photo_output, output, target, r, variances, gmm=0.5, tv=1e-5):
    squares = [(a - b) ** 2 for a, b in zip(output.flatten().tolist(), target.flatten().tolist(), strict=True)]
    e = residual.flatten().tolist()
    rain = [
        sum(rk * v * v / (2 * s) for rk, s in zip(row, variances, strict=True)) for row, v in zip(r, e, strict=True)
    ]
    variation, (batch, channels, height, width) = 0.0, photo_output.shape
    for image in range(batch):
        for channel in range(channels):
            p = photo_output[image, channel].tolist()
            variation += sum(abs(p[y][x] - p[y - 1][x]) for y in range(1, height) for x in range(width))
            variation += sum(abs(p[y][x] - p[y][x - 1]) for y in range(height) for x in range(1, width))
    return sum(squares) / len(squares) + gmm * sum(rain) / len(rain) + tv * variation / batch


@pytest.mark.parametrize('factors', [{}, {'gmm': 0.1, 'tv': 0.02}])
def test_it_is_the_published_formula_step_after_step(factors):
    loss = build(**{f'{name}_weight': value for name, value in factors.items()})
    weights, variances = [1 / 3] * 3, loss.variances.tolist()
    for step in range(4):
        *outputs, target = drawn(step)
        r, weights, variances = slow_step(outputs[0].flatten().tolist(), weights, variances)
        expected = slow_total(*outputs, target, r, variances, **factors)
        assert loss(outputs, target).item() == pytest.approx(expected, rel=1e-9)
        assert loss.weights.tolist() == pytest.approx(weights, rel=1e-9)
        assert loss.variances.tolist() == pytest.approx(variances, rel=1e-9)
    assert max(weights) - min(weights) > 0.01  # the components differ


def test_in_the_first_epoch_the_mixture_is_fitted_to_the_photo_anew_in_each_step():
    loss = build(epoch_steps=2)
    for step in range(3):
        kept = loss.weights.tolist(), loss.variances.tolist()
        *outputs, target = drawn(step)
        torch.manual_seed(step)
        start = [1 / 3] * 3, (torch.rand_like(loss.variances) + 1e-6).tolist()
        values = outputs[0] + outputs[1] if step < 2 else outputs[0]
        r, weights, variances = slow_step(values.flatten().tolist(), *(start if step < 2 else kept))
        torch.manual_seed(step)
        found = loss(outputs, target).item()
        assert found == pytest.approx(slow_total(*outputs, target, r, variances), rel=1e-9)
        assert loss.weights.tolist() == pytest.approx(weights, rel=1e-9)
        assert loss.variances.tolist() == pytest.approx(variances, rel=1e-9)
        assert loss.steps.item() == step + 1


def test_the_mixture_is_a_constant_for_the_gradient():
    loss = build()
    *outputs, target = drawn(0)
    outputs = [o.requires_grad_() for o in outputs]
    before = [1 / 3] * 3, loss.variances.tolist()
    loss(outputs, target).backward()
    r, _, variances = slow_step(outputs[0].detach().flatten().tolist(), *before)
    e = outputs[0].detach().flatten().tolist()
    expected = [
        0.5 * sum(rk / s for rk, s in zip(row, variances, strict=True)) * v / len(e)
        for row, v in zip(r, e, strict=True)
    ]  # fmt: skip
    assert outputs[0].grad.flatten().tolist() == pytest.approx(expected, rel=1e-9)
    assert torch.allclose(outputs[2].grad, 2 * (outputs[2] - target).detach() / target.numel(), rtol=1e-12)
    assert not loss.weights.requires_grad
    assert not loss.variances.requires_grad


def test_the_mixture_finds_the_components_that_made_the_rain():
    loss = build(components=2).float()
    generator = torch.Generator().manual_seed(0)
    zeros = torch.zeros(4, 3, 32, 32)
    for _ in range(60):
        wide = torch.rand(zeros.shape, generator=generator) < 0.25
        e = torch.randn(zeros.shape, generator=generator) * torch.where(wide, 0.5, 0.05)
        loss([e, zeros, zeros], zeros)
    assert sorted(loss.weights.tolist()) == pytest.approx([0.25, 0.75], abs=0.03)
    assert sorted(loss.variances.tolist()) == pytest.approx([0.05**2, 0.5**2], rel=0.15)


def test_all_black_photos_and_components_without_a_share_do_no_harm():
    loss = build().float()
    zeros = torch.zeros(SHAPE)
    for _ in range(3):
        assert loss([zeros, zeros, zeros], zeros).item() == 0
    assert loss.variances.tolist() == pytest.approx([1e-6] * 3)
    loss.weights.copy_(torch.tensor([1.0, 0.0, 0.0]))
    *outputs, target = (t.float() for t in drawn(1))
    for _ in range(3):
        assert loss(outputs, target).isfinite()
    assert loss.weights.tolist() == [1, 0, 0]
    assert loss.variances.isfinite().all()


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_a_batch_that_is_not_finite_leaves_the_mixture_alone(value):
    loss = build()
    *outputs, target = drawn(0)
    loss(outputs, target)
    before = copy.deepcopy(loss.state_dict())
    broken = [outputs[0].clone(), *outputs[1:]]
    broken[0][0, 0, 0, 0] = value
    assert not loss(broken, target).isfinite()
    assert torch.equal(loss.weights, before['weights'])
    assert torch.equal(loss.variances, before['variances'])
    assert loss(outputs, target).isfinite()


def test_the_mixture_and_the_place_in_the_epoch_survive_a_resume():
    loss = build(epoch_steps=2).float()
    batches = [[t.float() for t in drawn(seed)] for seed in range(4)]
    for *outputs, target in batches[:3]:
        loss(outputs, target)
    state = Objectives(loss, None, {}).state()
    other = build(epoch_steps=2).float()
    Objectives(other, None, {}).load_state(copy.deepcopy(state))
    assert other.state_dict().keys() == {'steps', 'weights', 'variances'}
    *outputs, target = batches[3]
    assert torch.equal(loss(outputs, target), other(outputs, target))
    assert other.steps.item() == 4


def test_it_can_be_checked_on_shapes_alone():
    loss = build_loss({'type': 'SEMILoss'})
    before = copy.deepcopy(loss.state_dict())
    with FakeTensorMode(allow_non_fake_inputs=True):
        zeros = torch.zeros(2, 3, 8, 8)
        assert loss([zeros, zeros, zeros], zeros).shape == ()
    assert torch.equal(loss.variances, before['variances'])


def test_the_weight_counts_for_all_terms():
    *outputs, target = drawn(0)
    assert build(loss_weight=3)(outputs, target).item() == pytest.approx(3 * build()(outputs, target).item(), rel=1e-12)


def test_other_outputs_are_refused_with_the_remedy():
    image = torch.zeros(1, 3, 8, 8)
    for wrong in (image, [image], [image] * 4):
        with pytest.raises(ValueError, match=r'set network_g\.semi: true and datasets\.train\.type: SemiRainDataset'):
            build()(wrong, image)


def test_a_mixture_without_components_is_refused():
    with pytest.raises(ValueError, match='components: 0 is below 1; the paper has 3'):
        build(components=0)
