"""Pictures of videos: luma and chroma planes to RGB, and a change of the RGB back into the planes.

A change is added to the planes, instead of turning RGB back into them: what a network leaves alone stays bit for bit,
colours outside RGB's range included, and halved chroma is not resampled twice.

Shapes: luma ``(H, W)``, each chroma plane ``(ceil(H / s), ceil(W / t))`` with s, t of 1 or 2, RGB ``(H, W, 3)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# parts of red and of blue in luma, by the number of the matrix in ITU-T H.273, which ffmpeg uses too
BT601, BT709, BT2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)
MATRICES = {1: BT709, 4: (0.30, 0.11), 5: BT601, 6: BT601, 7: (0.212, 0.087), 9: BT2020, 10: BT2020}
TALLEST_BT601 = 576  # lines of standard definition; players take BT.709 for larger pictures that do not tell


@dataclass(frozen=True)
class Coding:
    """How samples stand for colours.

    Args:
        depth: bits of a sample.
        full: samples use all their values; otherwise luma goes from 16 to 235, in 8 bits.
        weights: parts of red and of blue in luma; None if the planes are green, blue and red themselves.
    """

    depth: int
    full: bool
    weights: tuple[float, float] | None

    @property
    def luma(self) -> tuple[float, float]:
        """The samples for 0 and the steps from there to 1, of luma and of RGB planes."""
        if self.full or self.weights is None:
            return 0.0, 2.0**self.depth - 1
        return 16 * 2.0 ** (self.depth - 8), 219 * 2.0 ** (self.depth - 8)

    @property
    def chroma(self) -> tuple[float, float]:
        """The samples for grey and the steps from there to twice the strongest colour."""
        return 2.0 ** (self.depth - 1), (2.0**self.depth - 1 if self.full else 224 * 2.0 ** (self.depth - 8))


def coding(matrix: int, height: int, depth: int, full: bool, rgb: bool = False) -> Coding:
    """Return the coding of a picture.

    Args:
        matrix: the number in H.273; an unknown one is taken for what players take it for, by the height.
        height: in pixels.
        depth, full: see ``Coding``.
        rgb: the planes are green, blue and red.
    """
    guessed = BT601 if height <= TALLEST_BT601 else BT709
    return Coding(depth, full, None if rgb else MATRICES.get(matrix, guessed))


def yuv_to_rgb(planes: Sequence[np.ndarray], code: Coding) -> np.ndarray:
    """Return RGB, float32 in [0, 1].

    Args:
        planes: luma, or luma and two of chroma, or green, blue and red; uint8 or uint16.
        code: of the samples.
    """
    zero, steps = code.luma
    first = (planes[0].astype(np.float32) - zero) / steps
    if len(planes) == 1:
        return first.clip(0, 1)[..., None].repeat(3, axis=2)
    if code.weights is None:
        green, blue, red = (plane.astype(np.float32) / steps for plane in planes)
        return np.stack([red, green, blue], axis=2).clip(0, 1)
    grey, range_ = code.chroma
    blueness, redness = (_enlarged((p.astype(np.float32) - grey) / range_, first.shape) for p in planes[1:])
    kr, kb = code.weights
    red = first + 2 * (1 - kr) * redness
    blue = first + 2 * (1 - kb) * blueness
    green = (first - kr * red - kb * blue) / (1 - kr - kb)
    return np.stack([red, green, blue], axis=2).clip(0, 1)


def add_change(planes: Sequence[np.ndarray], change: np.ndarray, code: Coding) -> list[np.ndarray]:
    """Return new planes whose RGB is changed by so much.

    Args:
        planes: see ``yuv_to_rgb``.
        change: ``(H, W, 3)``, what is added to RGB in [0, 1].
        code: of the samples.
    """
    steps = code.luma[1]
    red, green, blue = (change[..., i] for i in range(3))
    if code.weights is None and len(planes) == 3:
        return [_added(plane, part * steps, code) for plane, part in zip(planes, (green, blue, red), strict=True)]
    kr, kb = code.weights or BT601
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    changed = [_added(planes[0], luma * steps, code)]
    for plane, part, k in zip(planes[1:], (blue, red), (kb, kr), strict=False):
        chroma = (part - luma) / (2 * (1 - k)) * code.chroma[1]
        changed.append(_added(plane, _reduced(chroma, plane.shape), code))
    return changed


def _added(plane: np.ndarray, change: np.ndarray, code: Coding) -> np.ndarray:
    return np.rint(plane + change).clip(0, 2**code.depth - 1).astype(plane.dtype)


def _enlarged(plane: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Chroma of the size of luma: sited between lines, and on every second column, as MPEG-2 and H.264 have it."""
    if plane.shape[0] < shape[0]:
        padded = np.pad(plane, ((1, 1), (0, 0)), 'edge')
        tall = np.empty((2 * plane.shape[0], plane.shape[1]), np.float32)
        tall[0::2] = 0.25 * padded[:-2] + 0.75 * plane
        tall[1::2] = 0.75 * plane + 0.25 * padded[2:]
        plane = tall[: shape[0]]
    if plane.shape[1] < shape[1]:
        padded = np.pad(plane, ((0, 0), (0, 1)), 'edge')
        wide = np.empty((plane.shape[0], 2 * plane.shape[1]), np.float32)
        wide[:, 0::2] = plane
        wide[:, 1::2] = 0.5 * (plane + padded[:, 1:])
        plane = wide[:, : shape[1]]
    return plane


def _reduced(plane: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The opposite of ``_enlarged``."""
    if shape[0] < plane.shape[0]:
        padded = np.pad(plane, ((0, plane.shape[0] % 2), (0, 0)), 'edge')
        plane = 0.5 * (padded[0::2] + padded[1::2])
    if shape[1] < plane.shape[1]:
        padded = np.pad(plane, ((0, 0), (1, 1)), 'edge')
        plane = 0.25 * padded[:, 0:-2:2] + 0.5 * padded[:, 1:-1:2] + 0.25 * padded[:, 2::2]
    return plane
