"""Gated feed-forward network of Restormer (https://arxiv.org/abs/2111.09881), written from the paper."""

from __future__ import annotations

from torch import Tensor, nn


class GDFN(nn.Module):
    """Gated-Dconv feed-forward network (section 3.2 of the paper), (B, C, H, W) -> (B, C, H, W).

        a, b = split(DW3x3(conv1x1(x)))
        out = conv1x1(activation(a) * b)

    The attribute names are those of the published weights.

    Args:
        dim: channels C.
        expansion: width of a and b over C; ``expansion * C`` is cut off to an integer, as in the release.
        bias: bias in the convolutions.
        activation: of the gate; None is the paper's GELU (with erf). A PReLU's slope lies under the key ``act1``.
    """

    def __init__(
        self, dim: int, expansion: float = 2.66, bias: bool = False, activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        hidden = hidden_width(dim, expansion)
        self.act1 = nn.GELU() if activation is None else activation
        self.project_in = nn.Conv2d(dim, hidden * 2, 1, bias=bias)
        self.dwconv = nn.Conv2d(hidden * 2, hidden * 2, 3, padding=1, groups=hidden * 2, bias=bias)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.dwconv(self.project_in(x)).chunk(2, dim=1)  # (B, hidden, H, W) each
        return self.project_out(self.act1(a) * b)


def hidden_width(dim: int, expansion: float) -> int:
    """Hidden channels of a feed-forward network: ``expansion * dim``, cut off to an integer."""
    hidden = int(dim * expansion)
    if hidden < 1:
        raise ValueError(f'expansion {expansion} leaves no hidden channel of {dim} channels; the papers have 2.66')
    return hidden
