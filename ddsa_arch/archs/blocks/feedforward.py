"""What the feed-forward networks of the family have in common: a form for strips, and the equation of their paper."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

from ddsa_arch.archs.blocks.attention import SpatialAttention, add_weighed
from ddsa_arch.archs.blocks.plain_form import is_plain

Crop = Callable[[Tensor], Tensor]  # cuts a strip without its halo out of the strip with it


class FeedForward(nn.Module, ABC):
    """A feed-forward network that can run in strips (see ``strips``), (B, C, H, W) -> (B, C, H, W).

    It may have a spatial attention before its last 1x1 convolution. A factor that all channels of a pixel share goes
    through that convolution, so it is multiplied in behind it, where the channels are fewer; the bias comes last.

    Attributes:
        halo: rows that its convolutions see beyond each side of a strip, without its spatial attention.
        project_out: the last convolution.
        spatial_attention: a SpatialAttention; another module, or no such attribute, where there is none.
    """

    halo: int
    project_out: nn.Conv2d
    spatial_attention: nn.Module

    @property
    def looks(self) -> bool:
        """Whether there is a spatial attention."""
        return isinstance(getattr(self, 'spatial_attention', None), SpatialAttention)

    def forward(self, x: Tensor) -> Tensor:
        if is_plain():
            return self.equation(x)
        p, looked_at = self.strip(x, lambda whole: whole, None)
        return p if looked_at is None else self.finish(p, self.spatial_attention.from_pooled(looked_at), None)

    @abstractmethod
    def equation(self, x: Tensor) -> Tensor:
        """The network in the order of operations of its paper."""

    @abstractmethod
    def strip(self, x: Tensor, crop: Crop, out: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What it gives inside a strip: the same as ``equation``, with fewer passes over its features.

        Args:
            x: ``(B, C, h, w)``.
            crop: cuts off the halo.
            out: without a spatial attention, to be added to, in place; None for 0.

        Returns:
            Without a spatial attention, the sum and None. With it, what ``finish`` needs of the strip, and what the
            attention looks at, ``(B, 2, h, w)``.
        """

    def finish(self, p: Tensor, weights: Tensor, out: Tensor | None) -> Tensor:
        """out + what it gives with a spatial attention, in place; None for an out of 0.

        Args:
            p: the first that ``strip`` gives.
            weights: the factor of each pixel, ``(B, 1, h, w)``.
            out: see ``strip``.
        """
        out = add_weighed(out, p, weights)
        bias = self.project_out.bias
        return out if bias is None else out.add_(bias[:, None, None])
