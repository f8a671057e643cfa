"""Projection of features onto a learned subspace, as DGUNet (https://arxiv.org/abs/2204.13348) merges its stages."""

from __future__ import annotations

import torch
import torch.fx
from torch import Tensor, nn

from ddsa_arch.archs.blocks import precision

SUBSPACE_RANK = 16  # vectors that span the subspace of Merge
NORM_EPS = 1e-6  # added to the L1 norm of those vectors


@torch.fx.wrap  # one operation where torch.fx traces, as it depends on the kind of device
def project(x: Tensor, basis: Tensor) -> Tensor:
    """The orthogonal projection of each channel onto the span of the basis images, x V^T (V V^T)^-1 V.

    Args:
        x: (B, C, H, W).
        basis: V, (B, r, H, W), any scale.

    Returns:
        (B, C, H, W) of the kind of ``x``; the N x N matrix of the projection is never formed.
    """
    with torch.autocast(x.device.type, enabled=False):
        v = precision.full_precision(basis).flatten(2)  # (B, r, N)
        v = v / (NORM_EPS + v.abs().sum(dim=-1, keepdim=True))
        rows = precision.full_precision(x).flatten(2)  # (B, C, N)
        weights = solve_gram(v @ v.mT, v @ rows.mT)  # (B, r, C)
        return (weights.mT @ v).unflatten(2, x.shape[2:]).to(x.dtype)


def solve_gram(gram: Tensor, values: Tensor) -> Tensor:
    """gram^-1 values; with a ridge on those matrices alone that rounding leaves without an inverse.

    The release inverts as it is and stops at a singular matrix. Where basis images depend on each other, a ridge of
    the size of the rounding gives the projection onto what they span; all other results stay what they were.

    Args:
        gram: (B, r, r), symmetric, no eigenvalue below zero but for rounding; float32 or float64.
        values: (B, r, C).
    """
    number = torch.finfo(gram.dtype)
    _, failed = torch.linalg.cholesky_ex(gram.detach())  # (B,), 0 where all eigenvalues are above the rounding
    trace = gram.detach().diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    ridge = torch.where(failed > 0, trace * gram.shape[-1] * number.eps + number.tiny, torch.zeros_like(trace))
    gram = gram + torch.diag_embed(ridge[:, None].expand(gram.shape[:2]))
    return torch.linalg.solve_ex(gram, values).result  # unlike solve(), it does not wait for the GPU to check


class Merge(nn.Module):
    """Inter-stage information passing by projection onto a learned subspace, two (B, C, H, W) -> (B, C, H, W).

    The earlier stage's features (the bridge) are projected onto the span of images that come from both:

        V = subnet([x, bridge]);  out = conv_block([x, project(bridge, V)]) + x
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.subnet = nn.Conv2d(channels * 2, SUBSPACE_RANK, 3, padding=1)
        self.conv_block = nn.Conv2d(channels * 2, channels, 3, padding=1)

    def forward(self, x: Tensor, bridge: Tensor) -> Tensor:
        basis = self.subnet(torch.cat([x, bridge], dim=1))
        return self.conv_block(torch.cat([x, project(bridge, basis)], dim=1)) + x
