"""PSNR and SSIM on Y as metrics that an option file can name.

``better`` tells BasicSR's model which of two scores is the better one; the value does not depend on it.
"""

from __future__ import annotations

import numpy as np
from basicsr.utils.registry import METRIC_REGISTRY

from ddsa_arch.ops import quality


@METRIC_REGISTRY.register()
def derain_psnr(
    img: np.ndarray, img2: np.ndarray, *, crop_border: int = 0, protocol: str = 'paper', better: str = 'higher'
) -> float:
    """PSNR on Y in dB between uint8 BGR ``(H, W, 3)`` images; see ``ops.quality.psnr_y``."""
    return quality.psnr_y(img, img2, crop_border, protocol)


@METRIC_REGISTRY.register()
def derain_ssim(
    img: np.ndarray, img2: np.ndarray, *, crop_border: int = 0, protocol: str = 'paper', better: str = 'higher'
) -> float:
    """SSIM on Y between uint8 BGR ``(H, W, 3)`` images; see ``ops.quality.ssim_y``."""
    return quality.ssim_y(img, img2, crop_border, protocol)
