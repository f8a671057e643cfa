"""The sum of losses that a training minimises."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from ddsa_arch.models.restore import final_output


class Objectives:
    """All losses of a training by the name that they have in logs.

    Args:
        pixel: ``train.pixel_opt``, of the network's outputs and the target; logged as ``l_pix``.
        perceptual: ``train.perceptual_opt``, BasicSR's, of the final output; logged as ``l_percep`` and ``l_style``.
        further: ``train.losses``, of the network's outputs and the target; logged as ``l_`` and their name.
    """

    def __init__(self, pixel: nn.Module | None, perceptual: nn.Module | None, further: Mapping[str, nn.Module]) -> None:
        self.pixel, self.perceptual, self.further = pixel, perceptual, further

    def __call__(self, outputs: Tensor | list[Tensor], target: Tensor) -> OrderedDict[str, Tensor]:
        """
        Args:
            outputs: of the network, float32.
            target: ``(B, 3, H, W)``.

        Returns:
            Scalars; what is made small is their sum.
        """
        losses = OrderedDict()
        if self.pixel:
            losses['l_pix'] = self.pixel(outputs, target)
        for name, loss in self.further.items():
            losses[f'l_{name}'] = loss(outputs, target)
        if self.perceptual:
            values = self.perceptual(final_output(outputs), target)
            for name, value in zip(('l_percep', 'l_style'), values, strict=True):
                if value is not None:
                    losses[name] = value
        return losses

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Return the buffers that losses carry from step to step, by the losses' names; only SEMI's loss has any."""
        return {
            name: {key: value.detach().cpu() for key, value in loss.named_buffers()}
            for name, loss in self._modules().items()
            if next(loss.buffers(), None) is not None
        }

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Load the buffers that ``state`` gave."""
        for name, buffers in state.items():
            own = dict(self._modules()[name].named_buffers())
            for key, value in buffers.items():
                own[key].copy_(value)

    def _modules(self) -> dict[str, nn.Module]:
        return ({'l_pix': self.pixel} if self.pixel else {}) | dict(self.further)
