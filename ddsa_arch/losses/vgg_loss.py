"""Differences between features of VGG16."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError

import torch
import torch.nn.functional as F
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from torchvision.models import VGG16_Weights

from ddsa_arch.errors import InputError
from ddsa_arch.losses.outputs import OutputsLoss
from ddsa_arch.registration import register

STAGES = {'relu1_2': slice(0, 4), 'relu2_2': slice(4, 9)}  # places in VGG16's features
CRITERIA = {'l1': F.l1_loss, 'smooth_l1': F.smooth_l1_loss}


@register(LOSS_REGISTRY)
class VGGFeatureLoss(OutputsLoss):
    """Sum of the distances after relu1_2 and relu2_2 of VGG16, of each output of the network; see OutputsLoss.

    As DID-MDN (https://arxiv.org/abs/1802.07412) and UMRL (https://arxiv.org/abs/1906.11129) train with it: VGG16 gets
    images in [-1, 1], without the normalisation that it was trained with. A smaller output meets a target whose
    nearest pixels are taken.

    Args:
        criterion: ``l1``, or ``smooth_l1`` (UMRL).
        weights: file with the weights of torchvision's ``vgg16``; absent, torchvision downloads them (528 MB).
        loss_weight: factor of the whole loss; 1.8 in both papers.
        output_weights: see OutputsLoss.

    Raises:
        InputError: the weights cannot be had.
        ValueError: an unknown criterion.
    """

    def __init__(
        self,
        criterion: str = 'l1',
        weights: str | None = None,
        loss_weight: float = 1.0,
        output_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(loss_weight, output_weights, target_resize='nearest')
        if criterion not in CRITERIA:
            raise ValueError(f'criterion: {criterion!r} is not known; choose one of {", ".join(map(repr, CRITERIA))}')
        self.criterion = CRITERIA[criterion]
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),  # relu1_2
            nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(),
            nn.Conv2d(128, 128, 3, padding=1), nn.ReLU(),  # relu2_2
        )  # fmt: skip
        state = _vgg16_state(weights)
        self.features.load_state_dict({k: state[f'features.{k}'] for k in self.features.state_dict()})
        self.requires_grad_(False)

    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        x, y = 2 * output - 1, 2 * target - 1
        distances = []
        for stage in STAGES.values():
            x, y = self.features[stage](x), self.features[stage](y)
            distances.append(self.criterion(x, y))
        return sum(distances[1:], distances[0])


def _vgg16_state(weights: str | None) -> dict[str, Tensor]:
    if weights is not None:
        if not Path(weights).is_file():
            raise InputError(f"weights: no file {weights}; give torchvision's vgg16, or leave the key out")
        return torch.load(weights, map_location='cpu', weights_only=True)
    source = VGG16_Weights.IMAGENET1K_V1
    try:
        return source.get_state_dict(progress=True, check_hash=True)
    except (URLError, OSError) as error:
        raise InputError(
            f'VGGFeatureLoss: {source.url} cannot be downloaded ({error}); download it elsewhere and name the file '
            'as weights of the loss'
        ) from error
