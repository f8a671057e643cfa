"""UMRL: uncertainty guided multi-scale residual learning (https://arxiv.org/abs/1906.11129).

Written from the paper's and the release's description. Attribute names are the release's, whose weights load without
conversion. The network estimates rain streaks (the residual) at 1/4, 1/2 and full resolution, and how confident it is
of them; what is left of a coarser residual where it is confident guides the next finer scale.

Batch norm: the release tests with the statistics of the image itself (``val.restore.batch_statistics``), and loses
3.5 dB without.

Shapes: B batch; images are in [-1, 1] inside, confidences in (0, 1).
"""

from __future__ import annotations

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ddsa_arch.archs.blocks import precision
from ddsa_arch.archs.blocks.dense import dense_level, image_from, keep_unused
from ddsa_arch.registration import register


class ResidualEstimator(nn.Module):
    """The rain streaks of a coarse scale from its features, (B, 64, h, w) -> (B, 3, h, w) in (-1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.trans_block1 = dense_level(64, 32, 32, 'same', kernel_size=3)
        self.conv2, self.trans_block2 = dense_level(32, 32, 32, 'same', kernel_size=3)
        self.conv3, self.trans_block3 = dense_level(32, 32, 32, 'same', kernel_size=3)
        self.conv_refin = nn.Conv2d(32, 16, 3, padding=1)
        self.refine3 = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.trans_block1(self.conv1(x))  # (B, 32, h, w)
        x = self.trans_block2(self.conv2(x))
        x = self.trans_block3(self.conv3(x))
        return image_from(x, self.conv_refin, self.refine3)


class ConfidenceEstimator(nn.Module):
    """How sure a residual is, from features and the residual: (B, 32 + 3, h, w) -> (B, 3, h, w) in (0, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(35, 16, 3, padding=1)
        self.conv2, self.trans_block2 = dense_level(16, 16, 16, 'same', kernel_size=3)
        self.conv3, self.trans_block3 = dense_level(16, 16, 16, 'same', kernel_size=3)
        self.refine3 = nn.Conv2d(16, 3, 3, padding=1)
        keep_unused(self, conv_refin=nn.Conv2d(16, 16, 3, padding=1))

    def forward(self, *features: Tensor) -> Tensor:
        x = self.conv1(torch.cat(features, dim=1))  # (B, 16, h, w)
        x = self.trans_block2(self.conv2(x))
        x = self.trans_block3(self.conv3(x))
        return precision.full_precision(self.refine3(x)).sigmoid()


@register(ARCH_REGISTRY)
class UMRL(nn.Module):
    """UMRL: an encoder and decoder of dense blocks, guided by residuals and confidences of the coarser scales.

    At a scale s with features f_s, and x_s the input with every 2nd or 4th pixel taken:

        r_s = E(f_s);  c_s = C([f_s, r_s]);  r_s * c_s goes into the next finer scale
        clean_s = tanh(conv3x3(lrelu(conv7x7(x_s - r_s))))

    One set of weights serves all scales: E (res_est) both coarse ones, C (conf_res) and the clean image's
    convolutions all three.

    Args:
        return_confidence: give the confidences as well, which UMRLLoss needs.

    Shape: (B, 3, H, W) in [0, 1] -> [clean_quarter, clean_half, clean], (B, 3, H/4, W/4) to (B, 3, H, W) in [0, 1];
        with ``return_confidence`` [c_quarter, c_half, c_full, clean_quarter, clean_half, clean]. H and W multiples of
        16.
    """

    size_multiple = 16
    block_types = ()  # none: a block that is computed anew moves the statistics of its batch norms twice

    def __init__(self, return_confidence: bool = False) -> None:
        super().__init__()
        self.return_confidence = return_confidence
        self.dense_block1, self.trans_block1 = dense_level(3, 29, 32, 'down', kernel_size=5)
        self.dense_block2, self.trans_block2 = dense_level(32, 32, 32, 'down', kernel_size=5)
        self.dense_block3, self.trans_block3 = dense_level(32, 32, 32, 'down', kernel_size=5)
        self.dense_block3_1, self.trans_block3_1 = dense_level(32, 32, 32, 'down', kernel_size=5)
        self.dense_block3_2, self.trans_block3_2 = dense_level(32, 32, 32, 'up', kernel_size=5)
        self.dense_block4, self.trans_block4 = dense_level(64, 32, 32, 'up', kernel_size=5)
        self.dense_block5, self.trans_block5 = dense_level(67, 32, 32, 'up', kernel_size=5)
        self.dense_block6, self.trans_block6 = dense_level(67, 16, 16, 'up', kernel_size=5)
        self.dense_block6_1, self.trans_block6_1 = dense_level(16, 16, 16, 'same', kernel_size=5)
        self.res_est = ResidualEstimator()
        self.conf_res = ConfidenceEstimator()
        self.conv_refin = nn.Conv2d(16, 16, 3, padding=1)
        self.refine3 = nn.Conv2d(16, 3, 3, padding=1)
        self.refineclean1 = nn.Conv2d(3, 8, 7, padding=3)
        self.refineclean2 = nn.Conv2d(8, 3, 3, padding=1)
        keep_unused(self, batchnorm20=nn.BatchNorm2d(20), batchnorm1=nn.BatchNorm2d(1))

    def forward(self, rain: Tensor) -> list[Tensor]:
        outputs = self.published_outputs(2 * rain - 1, conf_full=self.return_confidence)
        images = [(outputs[name] + 1) / 2 for name in ('clean_quarter', 'clean_half', 'clean')]
        if self.return_confidence:
            return [outputs['conf_quarter'], outputs['conf_half'], outputs['conf_full'], *images]
        return images

    def published_outputs(self, x: Tensor, conf_full: bool = True) -> dict[str, Tensor]:
        """Return the outputs of the release by their names.

        Args:
            x: the rainy image, (B, 3, H, W) in [-1, 1].
            conf_full: False leaves this output out, for which nothing else has a use.

        Returns:
            residual, clean, clean_quarter, clean_half in (-1, 1), conf_quarter, conf_half and conf_full in (0, 1).
        """
        x1 = self.trans_block1(self.dense_block1(x))  # (B, 32, H/2, W/2)
        x2 = self.trans_block2(self.dense_block2(x1))  # (B, 32, H/4, W/4)
        x3 = self.trans_block3(self.dense_block3(x2))  # (B, 32, H/8, W/8)
        y = self.trans_block3_1(self.dense_block3_1(x3))  # (B, 32, H/16, W/16)
        y = self.trans_block3_2(self.dense_block3_2(y))  # (B, 32, H/8, W/8)
        x4 = self.trans_block4(self.dense_block4(torch.cat([y, x3], dim=1)))  # (B, 32, H/4, W/4)

        r_quarter = self.res_est(torch.cat([x4, x2], dim=1))  # (B, 3, H/4, W/4)
        c_quarter = self.conf_res(x4, r_quarter)
        x5 = torch.cat([x4, x2, r_quarter * c_quarter], dim=1)
        x5 = self.trans_block5(self.dense_block5(x5))  # (B, 32, H/2, W/2)

        r_half = self.res_est(torch.cat([x5, x1], dim=1))  # (B, 3, H/2, W/2)
        c_half = self.conf_res(x5, r_half)
        x6 = torch.cat([x5, x1, r_half * c_half], dim=1)
        x6 = self.trans_block6(self.dense_block6(x6))  # (B, 16, H, W)
        x6 = self.trans_block6_1(self.dense_block6_1(x6))
        residual = image_from(x6, self.conv_refin, self.refine3)  # (B, 3, H, W)

        outputs = {
            'residual': residual,
            'clean': self.clean(x, residual),
            'clean_quarter': self.clean(x[..., ::4, ::4], r_quarter),
            'clean_half': self.clean(x[..., ::2, ::2], r_half),
            'conf_quarter': c_quarter,
            'conf_half': c_half,
        }
        if conf_full:
            outputs['conf_full'] = self.conf_res(x6, x6, residual)  # twice, as it takes 32 channels of features
        return outputs

    def clean(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return the clean image of a scale, (B, 3, h, w) in [-1, 1], which convolutions make of x - residual."""
        return image_from(x - residual, self.refineclean1, self.refineclean2)
