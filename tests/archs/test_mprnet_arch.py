"""MPRNet against the outputs of the published network."""

import pytest
import torch
from torch import nn

from ddsa_arch.archs.mprnet_arch import MPRNet


def published(net, x):
    return dict(zip(('stage1', 'stage2', 'stage3'), net(x), strict=True))


def tiny(**changes):
    torch.manual_seed(0)
    small = {'n_feat': 8, 'scale_unetfeats': 4, 'scale_orsnetfeats': 4, 'num_cab': 1, 'reduction': 1}
    return MPRNet(**(small | changes))


def test_the_published_outputs_are_reached(golden):
    golden('mprnet').check(MPRNet(), published)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'kernel_size': 4}, 'kernel_size: 4 cannot keep the size'),
        ({'reduction': 0}, 'reduction: 0 .* take one between 1 and 8'),
        ({'reduction': 9}, 'reduction: 9 leaves no hidden channel of 8; take one between 1 and 8'),
        ({'num_cab': 0}, 'num_cab: 0 leaves nothing to repeat; the published network has 8'),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(arguments, words):
    with pytest.raises(ValueError, match=words):
        tiny(**arguments)


def test_bias_reaches_every_convolution():
    net = tiny(bias=True)
    assert all(m.bias is not None for m in net.modules() if isinstance(m, nn.Conv2d))
    assert all(m.bias is None for m in tiny().modules() if isinstance(m, nn.Conv2d))
