"""ConvIR: revitalizing convolutional network for image restoration (IEEE TPAMI 2024, https://github.com/c-yn/ConvIR).

Written from a description of the release of 2024, whose names and weights are kept. Its deraining form is size L, with
dilations 3, 7 and 9 in the branch at three scales; dilations are no weights, so a file of another task loads too.

Shapes: B batch, C channels, H x W pixels of a map, g groups of channels, t taps of a filter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.fx
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ddsa_arch.registration import register

GROUPS = 8  # of channels, each with a filter of its own
POOLS = (8, 4, 2)  # of the branch at three scales, coarse to fine


@torch.fx.wrap
def reflect(x: Tensor, margin: int, dim: int) -> Tensor:
    """Extend a side by reflection about its first and last pixel, as often as it takes where the map is small.

    Args:
        x: any shape.
        margin: pixels at each end.
        dim: of the side.
    """
    size = x.shape[dim]
    place = torch.arange(-margin, size + margin, device=x.device)
    last = torch.arange(size - 1, size, device=x.device)  # a tensor, as ONNX divides by tensors alone
    period = (2 * last).clamp_min(1)
    return x.index_select(dim, (torch.remainder(place + last, period) - last).abs())


class ConvGELU(nn.Module):
    """A convolution, which keeps the size, halves it (``stride`` 2) or doubles it (``transpose``), and GELU.

    Its weights are under ``main.0``.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, gelu: bool = True, transpose: bool = False
    ) -> None:
        super().__init__()
        conv: nn.Module
        if transpose:
            conv = nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding=kernel // 2 - 1)
        else:
            conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
        self.main = nn.Sequential(conv, nn.GELU()) if gelu else nn.Sequential(conv)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)


class DynamicFilter(nn.Module):
    """Split a map into low and high frequencies by filters made from its own mean, (B, C, H, W) -> the same.

        F = tanh(W mean(x)),  low = F * x  (a dilated correlation, one filter for each of g groups of channels)
        out = lamb_l ((1 + inside_all) low - inside_all mean_w(x)) + (1 + lamb_h) x

    mean_w is the mean over the directions in which the filter has taps.

    Args:
        dim: channels C, a multiple of g.
        taps: rows and columns of the filter, 1 or 3 each.
        dilation: pixels between taps.
        normalised: a BatchNorm before the tanh.
    """

    def __init__(self, dim: int, taps: tuple[int, int], dilation: int, normalised: bool = False) -> None:
        super().__init__()
        if normalised:  # the published order of the weights differs
            self.lamb_l, self.lamb_h = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
            self.inside_all = nn.Parameter(torch.zeros(dim, 1, 1))
        else:
            self.inside_all = nn.Parameter(torch.zeros(dim, 1, 1))
            self.lamb_l, self.lamb_h = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.conv = nn.Conv2d(dim, GROUPS * taps[0] * taps[1], 1, bias=False)
        self.bn = nn.BatchNorm2d(GROUPS * taps[0] * taps[1]) if normalised else None
        if normalised:
            nn.init.kaiming_normal_(self.conv.weight, mode='fan_out', nonlinearity='relu')
        self.taps, self.dilation = taps, dilation
        self.directions = [dim for dim, count in zip((-2, -1), taps, strict=True) if count > 1]

    def forward(self, x: Tensor) -> Tensor:
        filters = self.conv(x.mean(dim=(-2, -1), keepdim=True))
        filters = torch.tanh(self.bn(filters) if self.bn is not None else filters)  # (B, g t, 1, 1)
        low = self.correlate(x, filters)
        inside, mean = self.inside_all, x.mean(dim=self.directions, keepdim=True)
        low = (1 + inside) * low - inside * mean
        return self.lamb_l[:, None, None] * low + (1 + self.lamb_h)[:, None, None] * x

    def correlate(self, x: Tensor, filters: Tensor) -> Tensor:
        """Correlate each group of channels with its filter, at the taps' places in the reflected map."""
        height, width = x.shape[-2:]
        grouped = x.unflatten(1, (GROUPS, -1))  # (B, g, C/g, H, W)
        for direction in self.directions:
            grouped = reflect(grouped, self.dilation, direction)
        filters = filters.unflatten(1, (GROUPS, 1, -1))  # (B, g, 1, t, 1, 1)
        rows, columns = self.taps
        low = torch.zeros_like(x).unflatten(1, (GROUPS, -1))
        for tap in range(rows * columns):
            top, left = (self.dilation * step for step in divmod(tap, columns))
            low = low + filters[:, :, :, tap] * grouped[..., top : top + height, left : left + width]
        return low.flatten(1, 2)


class StripAttention(nn.Module):
    """Filters of one row, then filters of one column (B, C, H, W) -> the same: gamma W(H(x)) + beta x.

    ``H_spatial_att`` filters along the width, in spite of its name.
    """

    def __init__(self, dim: int, dilation: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(dim, 1, 1))
        self.beta = nn.Parameter(torch.ones(dim, 1, 1))
        self.H_spatial_att = DynamicFilter(dim, (1, 3), dilation)
        self.W_spatial_att = DynamicFilter(dim, (3, 1), dilation)

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * self.W_spatial_att(self.H_spatial_att(x)) + self.beta * x


class MultiShapeKernel(nn.Module):
    """The sum of a square and a strip-shaped dynamic filter, (B, C, H, W) -> the same."""

    def __init__(self, dim: int, dilation: int) -> None:
        super().__init__()
        self.square_att = DynamicFilter(dim, (3, 3), dilation, normalised=True)
        self.strip_att = StripAttention(dim, dilation)

    def forward(self, x: Tensor) -> Tensor:
        return self.strip_att(x) + self.square_att(x)


class MultiScaleBranch(nn.Module):
    """Filter a map at 1/8, 1/4 and 1/2 of its size, from coarse to fine, (B, C, H, W) -> the same; 8 divides H and W.

    y_j = MSK(W_j(pool_j(x) + up(y_{j-1}))),  out = W GELU(x + sum of up(y_j))

    Args:
        dim: channels C.
        dilations: of the filters at the three scales.
    """

    def __init__(self, dim: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1, bias=False) for _ in POOLS)
        self.dynas = nn.ModuleList(MultiShapeKernel(dim, dilation) for dilation in dilations)
        self.conv_sum = nn.Conv2d(dim, dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        total, coarser = x, None
        for pool, conv, dyna in zip(POOLS, self.convs, self.dynas, strict=True):
            pooled = F.avg_pool2d(x, pool)
            if coarser is not None:
                pooled = pooled + F.interpolate(coarser, scale_factor=2.0, mode='bilinear', align_corners=True)
            coarser = dyna(conv(pooled))
            total = total + F.interpolate(coarser, x.shape[-2:], mode='bilinear', align_corners=True)
        return self.conv_sum(F.gelu(total))


class ResBlock(nn.Module):
    """x + W2(P(GELU(W1 x))), (B, C, H, W) -> the same; P is the branch at three scales or nothing."""

    def __init__(self, dim: int, dilations: Sequence[int] | None = None) -> None:
        super().__init__()
        branch = MultiScaleBranch(dim, dilations) if dilations else nn.Identity()
        self.main = nn.Sequential(ConvGELU(dim, dim, 3), branch, ConvGELU(dim, dim, 3, gelu=False))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x)


class Stage(nn.Module):
    """Residual blocks, the last of which has the branch at three scales, (B, C, H, W) -> the same."""

    def __init__(self, dim: int, blocks: int, dilations: Sequence[int]) -> None:
        super().__init__()
        plain = (ResBlock(dim) for _ in range(blocks - 1))
        self.layers = nn.Sequential(*plain, ResBlock(dim, dilations))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ShallowFeatures(nn.Module):
    """SCM: features of a smaller copy of the image, (B, 3, H, W) -> (B, dim, H, W)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            ConvGELU(3, dim // 4, 3),
            ConvGELU(dim // 4, dim // 2, 1),
            ConvGELU(dim // 2, dim // 2, 3),
            ConvGELU(dim // 2, dim, 1, gelu=False),
            nn.InstanceNorm2d(dim, affine=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)


class Fusion(nn.Module):
    """FAM: one convolution of the trunk's features beside those of the smaller image, twice (B, C, H, W) -> one."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.merge = ConvGELU(2 * dim, dim, 3, gelu=False)

    def forward(self, trunk: Tensor, shallow: Tensor) -> Tensor:
        return self.merge(torch.cat((trunk, shallow), dim=1))


@register(ARCH_REGISTRY)
class ConvIR(nn.Module):
    """The U-shaped network of three resolutions, each of which takes in an image and gives one out.

    The smaller images are every second pixel of the larger one. Outputs are residuals that are added to them.

    Args:
        num_res: residual blocks of each of the six stages: 4, 8 and 16 are the sizes S, B and L.
        width: channels at full resolution, a multiple of 8.
        dilations: of the filters in the branch at three scales, coarse to fine; (7, 9, 11) is the form for haze.

    Shape: (B, 3, H, W) in [0, 1] -> a list of (B, 3, H/4, W/4), (B, 3, H/2, W/2) and (B, 3, H, W), not clamped.
    H and W are multiples of 32. The release refuses sides below 128, where its reflections reach beyond the map; here
    they go back and forth. In training a batch of at least 2, as a BatchNorm sees one number of each image.

    Raises:
        ValueError: a width that is not a multiple of 8, or no block.
    """

    size_multiple = 32
    block_types = (ResBlock,)
    compiled_types = (ResBlock,)

    def __init__(self, num_res: int = 16, width: int = 32, dilations: Sequence[int] = (3, 7, 9)) -> None:
        super().__init__()
        if width < GROUPS or width % GROUPS:
            raise ValueError(
                f'width: {width} is not a multiple of {GROUPS}; try {max(1, round(width / GROUPS)) * GROUPS}'
            )
        if num_res < 1:
            raise ValueError(f'num_res: {num_res}, wanted at least 1 block in each stage')
        if len(dilations) != len(POOLS) or min(dilations) < 1:
            raise ValueError(f'dilations: {list(dilations)}, wanted {len(POOLS)} whole numbers above 0')
        one, two, four = width, 2 * width, 4 * width
        self.Encoder = nn.ModuleList(Stage(dim, num_res, dilations) for dim in (one, two, four))
        self.feat_extract = nn.ModuleList(
            [
                ConvGELU(3, one, 3),
                ConvGELU(one, two, 3, stride=2),
                ConvGELU(two, four, 3, stride=2),
                ConvGELU(four, two, 4, stride=2, transpose=True),
                ConvGELU(two, one, 4, stride=2, transpose=True),
                ConvGELU(one, 3, 3, gelu=False),
            ]
        )
        self.Decoder = nn.ModuleList(Stage(dim, num_res, dilations) for dim in (four, two, one))
        self.Convs = nn.ModuleList([ConvGELU(four, two, 1), ConvGELU(two, one, 1)])
        self.ConvsOut = nn.ModuleList([ConvGELU(four, 3, 3, gelu=False), ConvGELU(two, 3, 3, gelu=False)])
        self.FAM1, self.SCM1 = Fusion(four), ShallowFeatures(four)
        self.FAM2, self.SCM2 = Fusion(two), ShallowFeatures(two)

    def forward(self, x: Tensor) -> list[Tensor]:
        half = x[..., ::2, ::2]
        quarter = half[..., ::2, ::2]
        full_features = self.Encoder[0](self.feat_extract[0](x))  # (B, C, H, W)
        features = self.FAM2(self.feat_extract[1](full_features), self.SCM2(half))
        half_features = self.Encoder[1](features)  # (B, 2C, H/2, W/2)
        features = self.FAM1(self.feat_extract[2](half_features), self.SCM1(quarter))
        features = self.Decoder[0](self.Encoder[2](features))  # (B, 4C, H/4, W/4)
        outputs = [self.ConvsOut[0](features) + quarter]
        features = self.Convs[0](torch.cat((self.feat_extract[3](features), half_features), dim=1))
        features = self.Decoder[1](features)
        outputs.append(self.ConvsOut[1](features) + half)
        features = self.Convs[1](torch.cat((self.feat_extract[4](features), full_features), dim=1))
        features = self.Decoder[2](features)
        return [*outputs, self.feat_extract[5](features) + x]
