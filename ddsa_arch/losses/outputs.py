"""The base of this package's losses, for networks that give one image or several."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

TARGET_RESIZES = ('bilinear', 'nearest', 'gaussian')
PYRAMID_TAPS = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)  # one direction of the blur before each halving


class OutputsLoss(nn.Module, abc.ABC):
    """Sum over the outputs of a network: loss_weight * sum_i w_i distance(output_i, target).

    An output that is smaller than the target is compared with the target brought to its size. ``bilinear``, without
    aligned corners: half the size is the mean of 2 x 2 pixels, and a quarter that of the middle 2 x 2 of 4 x 4 (ELF,
    https://arxiv.org/abs/2207.10455, and ConvIR). ``nearest`` takes pixels as they are. ``gaussian`` halves the size
    as often as it takes, each time after a blur (NeRD-Rain, https://arxiv.org/abs/2404.01547), see ``pyramid_half``.

    Args:
        loss_weight: factor of the whole loss.
        output_weights: w_i, one for each output of the network, the last one being the final image; all 1 if absent.
            An output of weight 0 is left out.
        reduction: ``mean``, as option files of BasicSR have it; there is no other.
        target_resize: ``bilinear``, ``nearest`` or ``gaussian``.

    Raises:
        ValueError: another reduction or way of resizing.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        output_weights: Sequence[float] | None = None,
        reduction: str = 'mean',
        target_resize: str = 'bilinear',
    ) -> None:
        super().__init__()
        if reduction != 'mean':
            raise ValueError(f"reduction: {reduction!r}, wanted 'mean', which is the only one")
        check_choice('target_resize', target_resize, TARGET_RESIZES)
        self.loss_weight = loss_weight
        self.output_weights = output_weights
        self.target_resize = target_resize

    @abc.abstractmethod
    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean distance over a batch, a scalar; both images are ``(B, C, H, W)``."""

    def forward(self, output: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """
        Args:
            output: ``(B, C, H, W)``, or several of them, some of which may be smaller.
            target: ``(B, C, H, W)``.

        Raises:
            ValueError: ``output_weights`` has another length than the network has outputs, or nothing but zeros; or
                halving never leads to the size of an output.
        """
        outputs = [output] if isinstance(output, Tensor) else list(output)
        weights = self.output_weights or [1.0] * len(outputs)
        if len(weights) != len(outputs):
            many = 's' if len(outputs) > 1 else ''
            raise ValueError(
                f'output_weights has {len(weights)} entries, the network {len(outputs)} output{many}; '
                'give one for each, the final image last'
            )
        if not any(weights):
            raise ValueError('output_weights: all of them are 0, which leaves nothing to learn from')
        first, *others = (
            weight * self.distance(image, resized(target, image, self.target_resize))
            for weight, image in zip(weights, outputs, strict=True)
            if weight
        )
        return self.loss_weight * sum(others, first)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse the value of an argument that is none of its choices.

    Raises:
        ValueError: it is none; the message names all.
    """
    if value not in choices:
        raise ValueError(f'{name}: {value!r} is not known; choose one of {", ".join(map(repr, choices))}')


def resized(target: Tensor, like: Tensor, mode: str = 'bilinear') -> Tensor:
    """Resize ``target`` to the height and width of ``like``; ``mode`` is one of ``TARGET_RESIZES``, see OutputsLoss.

    Raises:
        ValueError: ``gaussian``, and halving never leads to this size.
    """
    wanted = like.shape[-2:]
    if target.shape[-2:] == wanted:
        return target
    if mode != 'gaussian':
        return F.interpolate(target, size=wanted, mode=mode, align_corners=False if mode == 'bilinear' else None)
    smaller = target
    while smaller.shape[-2] > wanted[0] and smaller.shape[-1] > wanted[1]:
        smaller = pyramid_half(smaller)
    if smaller.shape[-2:] != wanted:
        raise ValueError(
            f'target_resize: gaussian halves the target of {target.shape[-1]} x {target.shape[-2]} pixels, and never '
            f'comes to the {wanted[1]} x {wanted[0]} of an output; choose bilinear'
        )
    return smaller


def pyramid_half(x: Tensor) -> Tensor:
    """Take a step up a Gaussian pyramid, ``(B, C, H, W)`` -> ``(B, C, H // 2, W // 2)``; sides of 3 pixels or more.

    Rows and columns are blurred with 1/16 (1, 4, 6, 4, 1), reflected at the border without repeating the edge pixel;
    then the size is halved bilinearly, which for even sides is the mean of 2 x 2 pixels.
    """
    height, width = x.shape[-2:]
    x = F.pad(x, (2, 2, 2, 2), mode='reflect')
    # sums of shifted images, as autocast would turn a convolution to 16 bits
    first, *others = (tap * x[..., i : i + height, :] for i, tap in enumerate(PYRAMID_TAPS))
    x = sum(others, first)
    first, *others = (tap * x[..., i : i + width] for i, tap in enumerate(PYRAMID_TAPS))
    return F.interpolate(sum(others, first), size=(height // 2, width // 2), mode='bilinear', align_corners=False)
