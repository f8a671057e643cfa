"""UMRL against the outputs of the published network."""

import copy

import pytest
import torch

from ddsa_arch.archs.blocks.dense import Transition
from ddsa_arch.archs.umrl_arch import UMRL
from ddsa_arch.losses.umrl_loss import UMRLLoss
from ddsa_arch.models.restore import Recipe, restore

UNUSED = {
    'batchnorm20.weight', 'batchnorm20.bias', 'batchnorm1.weight', 'batchnorm1.bias',
    'conf_res.conv_refin.weight', 'conf_res.conv_refin.bias',
}  # fmt: skip


@pytest.mark.parametrize('run', ['plain', 'trainmode'])
def test_the_published_outputs_are_reached(golden, run):
    golden('umrl').check(UMRL(), lambda net, x: net.published_outputs(x), run=run)


def build(**arguments):
    """A network whose batch norms have seen something."""
    torch.manual_seed(0)
    net = UMRL(**arguments).eval()
    for name, value in net.state_dict().items():
        if 'bn' in name and value.ndim == 1:
            torch.nn.init.uniform_(value, *((-0.3, 0.3) if name.endswith(('mean', 'bias')) else (0.7, 1.3)))
    return net


def test_images_in_0_to_1_come_from_the_coarsest_to_the_finest_with_the_confidences_before_them():
    net = build(return_confidence=True)
    rain = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        outputs, published = net(rain), net.published_outputs(2 * rain - 1)
        net.return_confidence = False
        images = net(rain)
    assert [tuple(o.shape[-2:]) for o in outputs] == [(8, 12), (16, 24), (32, 48)] * 2
    for output, scale in zip(outputs[:3], ('quarter', 'half', 'full'), strict=True):
        assert torch.equal(output, published[f'conf_{scale}'])
        assert 0 < output.min() < output.max() < 1
    for output, name in zip(outputs[3:], ('clean_quarter', 'clean_half', 'clean'), strict=True):
        assert torch.equal(output, (published[name] + 1) / 2)
        assert 0 < output.min() < output.max() < 1
    assert len(images) == 3
    assert all(torch.equal(a, b) for a, b in zip(images, outputs[3:], strict=True))


def test_the_published_loss_takes_what_the_network_gives():
    net = build(return_confidence=True).train()
    loss = UMRLLoss()(net(torch.rand(2, 3, 32, 32)), torch.rand(2, 3, 32, 32))
    loss.backward()
    assert loss.isfinite()
    assert {k for k, p in net.named_parameters() if p.grad is None} == UNUSED


@pytest.mark.parametrize('return_confidence', [False, True])
def test_all_scales_share_one_estimator_of_each_kind(return_confidence):
    net, calls = build(return_confidence=return_confidence), []
    for name in ('res_est', 'conf_res'):
        getattr(net, name).register_forward_hook(lambda *args, name=name: calls.append(name))
    net(torch.rand(1, 3, 16, 16))
    assert calls == ['res_est', 'conf_res'] * 2 + ['conf_res'] * return_confidence  # the last one only where asked for


def test_the_statistics_of_the_image_itself_are_those_of_training_mode():
    net = build()
    x = torch.rand(2, 3, 32, 32)
    before = copy.deepcopy(net.state_dict())
    out = restore(net, x, Recipe(batch_statistics=True))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not torch.allclose(out, restore(net, x), atol=1e-3)
    net.train()
    with torch.no_grad():
        expected = torch.cat([net(image[None])[-1] for image in x])
    assert (out - expected).abs().max() < 1e-6


def test_an_unknown_resampling_is_refused_with_what_is_allowed():
    with pytest.raises(ValueError, match="resample: 'half' is not known; choose one of 'same', 'down', 'up'"):
        Transition(4, 4, 'half')
