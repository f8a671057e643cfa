"""PReNet, PRN and their recursive forms against the outputs and the weights of the published networks."""

import pytest
import torch

from ddsa_arch.archs.prenet_arch import PRN, PReNet, PReNet_r, PRN_r
from ddsa_arch.archs.weights import load_weights
from ddsa_arch.data.image_source import to_tensor
from ddsa_arch.files.images import read_image
from ddsa_arch.models.restore import restore, to_uint8
from ddsa_arch.ops.quality import psnr_y

NETWORKS = [PReNet, PReNet_r, PRN, PRN_r]
KINDS = pytest.mark.parametrize('kind', NETWORKS)


def published(net, x):
    images = net(x)
    return {f'stage{t}': image for t, image in enumerate(images, 1)} | {'final': images[-1]}


def tiny(kind, **changes):
    torch.manual_seed(0)
    return kind(**({'stages': 3, 'width': 4, 'blocks': 2} | changes))


@pytest.mark.parametrize(
    ('stem', 'kind'), zip(('prenet', 'prenet_prenet_r', 'prenet_prn', 'prenet_prn_r'), NETWORKS, strict=True)
)
def test_the_published_outputs_are_reached(golden, stem, kind):
    golden(stem).check(kind(), published)


@pytest.mark.parametrize('kind', [PReNet, PReNet_r, PRN])
def test_the_published_weights_derain_an_image(kind, repository):
    data = repository.parent / 'shared' / 'data'
    weights = data / 'weights' / 'prenet' / f'{kind.__name__}_Rain100L.pth'
    images = [data / 'rain100l_test' / side / '5.webp' for side in ('input', 'target')]
    if not all(path.is_file() for path in (weights, *images)):
        pytest.skip('the published weights or the real images are not there')
    rainy, clean = (read_image(path)[80:240, 160:320] for path in images)
    net = kind()
    load_weights(net, weights)
    derained = to_uint8(restore(net, to_tensor(rainy)[None]))
    assert psnr_y(rainy, clean) < 23
    assert psnr_y(derained, clean) > 40


@KINDS
def test_the_number_of_stages_does_not_touch_the_weights(kind):
    short, long = tiny(kind, stages=2), tiny(kind, stages=4)
    long.load_state_dict(short.state_dict(), strict=True)
    x = torch.rand(1, 3, 8, 8)
    images = long(x)
    assert len(images) == 4
    for early, image in zip(short(x), images, strict=False):
        assert torch.equal(early, image)
    assert not torch.equal(images[-1], images[-2])


def test_the_first_stage_has_nothing_to_forget():
    net = tiny(PReNet, width=8, stages=1)
    net(torch.rand(2, 3, 16, 16))[-1].mean().backward()
    assert [k for k, p in net.named_parameters() if not p.grad.abs().sum() > 0] == ['conv_f.0.weight', 'conv_f.0.bias']


@KINDS
@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'stages': 0}, 'stages: 0 leaves nothing to pass; the published networks have 6'),
        ({'width': -1}, 'width: -1 leaves nothing to pass; the published networks have 32'),
        ({'blocks': 0}, 'blocks: 0 leaves nothing to pass; the published networks have 5'),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_published(kind, arguments, words):
    with pytest.raises(ValueError, match=words):
        tiny(kind, **arguments)
