import math

import pytest
import torch
from basicsr.losses import build_loss

UMRL = {'type': 'UMRLLoss'}


def outputs(confidence, size=(8, 12), seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = [(size[0] // s, size[1] // s) for s in (4, 2, 1)]
    images = [torch.rand(2, 3, *s, generator=generator, dtype=torch.float64) for s in sizes]
    spread = [torch.rand(2, 3, *s, generator=generator, dtype=torch.float64) * 0.02 for s in sizes]
    return [confidence + s for s in spread] + images


def slow(out, target):
    """The published formula, pixel by pixel, in [-1, 1]."""
    fidelity, logs, raw = 0.0, 0.0, 0.0
    batch, _, height, width = target.shape
    for place, (w, v, step) in enumerate([(0.25, 4, 4), (0.5, 2, 2), (1.0, 1, 1)]):
        c, x, y = out[place], 2 * out[3 + place] - 1, 2 * target[..., ::step, ::step] - 1
        values = []
        for cv, xv, yv in zip(c.flatten().tolist(), x.flatten().tolist(), y.flatten().tolist(), strict=True):
            d = abs(cv * xv + (1 - cv) * yv - yv)
            values.append(0.5 * d * d if d < 1 else d - 0.5)
            logs += v * math.log(cv + 1e-8)
            raw += v * math.log(cv)
        fidelity += w * sum(values) / len(values)
    pixels = batch * height * width
    t = -raw / pixels
    factor = 0.1 if t >= 0.25 else 0.09 * 0.1 * (math.exp(5.4 * t) - 0.98)
    return fidelity - factor * logs / pixels, t


@pytest.mark.parametrize(('confidence', 'below'), [(0.5, False), (0.97, True), (0.05, False)])
def test_it_is_the_published_formula(confidence, below):
    target = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    expected, t = slow(outputs(confidence), target)
    assert (t < 0.25) == below
    assert build_loss(UMRL)(outputs(confidence), target).item() == pytest.approx(expected, rel=1e-9)


def test_confidence_is_rewarded_where_the_image_is_right_and_costs_where_it_is_wrong():
    target = torch.full((1, 3, 8, 8), 0.5)
    sizes = [(2, 2), (4, 4), (8, 8)]
    for image, sign in ((0.5, -1), (1.5, 1)):
        confidences = [torch.full((1, 3, *s), 0.6, requires_grad=True) for s in sizes]
        images = [torch.full((1, 3, *s), image) for s in sizes]
        build_loss(UMRL)(confidences + images, target).backward()
        assert all((c.grad * sign > 0).all() for c in confidences[2:])


def test_other_outputs_are_refused_with_the_remedy():
    for wrong in (torch.zeros(1, 3, 8, 8), [torch.zeros(1, 3, 8, 8)] * 3):
        with pytest.raises(ValueError, match=r'set network_g\.return_confidence: true'):
            build_loss(UMRL)(wrong, torch.zeros(1, 3, 8, 8))
