import urllib.error

import pytest
import torch
import torch.nn.functional as F
from basicsr.losses import build_loss

from ddsa_arch.errors import InputError
from ddsa_arch.losses import vgg_loss

SHAPES = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128)}


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """A file with the names of torchvision's vgg16, as far as they are needed, and one more."""
    torch.manual_seed(0)
    state = {f'features.{i}.weight': torch.randn(*shape, 3, 3) * 0.05 for i, shape in SHAPES.items()}
    state |= {f'features.{i}.bias': torch.randn(shape[0]) * 0.1 for i, shape in SHAPES.items()}
    path = tmp_path_factory.mktemp('vgg') / 'vgg16.pth'
    torch.save(state | {'classifier.0.weight': torch.zeros(1)}, path)
    return path


@pytest.mark.parametrize(('criterion', 'distance'), [('l1', F.l1_loss), ('smooth_l1', F.smooth_l1_loss)])
def test_it_is_the_distance_of_the_features_of_images_in_minus_one_to_one(weights, criterion, distance):
    state = torch.load(weights, weights_only=True)

    def features(x):
        relu1_1 = F.relu(F.conv2d(2 * x - 1, state['features.0.weight'], state['features.0.bias'], padding=1))
        relu1_2 = F.relu(F.conv2d(relu1_1, state['features.2.weight'], state['features.2.bias'], padding=1))
        pooled = F.max_pool2d(relu1_2, 2)
        relu2_1 = F.relu(F.conv2d(pooled, state['features.5.weight'], state['features.5.bias'], padding=1))
        return relu1_2, F.relu(F.conv2d(relu2_1, state['features.7.weight'], state['features.7.bias'], padding=1))

    x, y = torch.rand(2, 3, 16, 20), torch.rand(2, 3, 16, 20)
    expected = 1.8 * sum(distance(a, b) for a, b in zip(features(x), features(y), strict=True))
    loss = build_loss({'type': 'VGGFeatureLoss', 'criterion': criterion, 'weights': str(weights), 'loss_weight': 1.8})
    assert loss(x, y).item() == pytest.approx(expected.item(), rel=1e-6)
    assert not any(p.requires_grad for p in loss.parameters())


def test_a_smaller_output_meets_the_nearest_pixels_of_the_target(weights):
    target = torch.rand(1, 3, 16, 16)
    loss = vgg_loss.VGGFeatureLoss(weights=str(weights), output_weights=[1, 0])
    assert loss([target[..., ::2, ::2], torch.zeros_like(target)], target).item() == 0


def test_weights_that_cannot_be_had_are_named(monkeypatch, tmp_path):
    with pytest.raises(InputError, match=r"no file .*none\.pth; give torchvision's vgg16"):
        vgg_loss.VGGFeatureLoss(weights=str(tmp_path / 'none.pth'))

    def refuse(*_, **__):
        raise urllib.error.URLError('no route')

    monkeypatch.setattr(vgg_loss.VGG16_Weights.IMAGENET1K_V1.__class__, 'get_state_dict', refuse)
    with pytest.raises(InputError, match=r'cannot be downloaded .*no route.* name the file as weights of the loss'):
        vgg_loss.VGGFeatureLoss()
    with pytest.raises(ValueError, match="'l2' is not known; choose one of 'l1', 'smooth_l1'"):
        vgg_loss.VGGFeatureLoss(criterion='l2')
