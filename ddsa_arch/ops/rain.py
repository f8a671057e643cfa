"""Rain rendered on clean photos: streak layers, and the two published formulas that lay them over an image.

    O = t (B ⊕ S) + (1 - t) A,    B ⊕ S = B + S - B S

Symbols: O rainy image, B clean background, S streak layer, A atmospheric light, t transmission (1 - ``veil``), all in
[0, 1]. The screen blend ⊕ is that of Luo, Xu and Ji, "Removing rain from a single image via discriminative sparse
coding", ICCV 2015; the veil of distant rain, t and A, is that of Yang et al., "Deep joint rain detection and removal
from a single image", CVPR 2017 (https://arxiv.org/abs/1609.07769), who add the streaks instead of screening them.

How streaks look follows Garg and Nayar: a falling drop is motion-blurred to a bright line, the longer and thicker the
nearer it is ("Vision and rain", IJCV 2007), beaded by the oscillation of the drop ("Photorealistic rendering of rain
streaks", SIGGRAPH 2006). The presets are set by eye and by PSNR: rainy photos score about as benchmark images do,
``light`` as Rain100L (27 dB), ``heavy`` a little above Rain200H (13 dB).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ddsa_arch.errors import InputError, did_you_mean

STEEPEST = 60.0  # degrees from vertical: streaks are drawn row by row
MOST_OPAQUE = 0.99  # an opacity of 1 is an infinite optical depth
SMALLEST_BATCH = 1 << 18  # pixels of streaks drawn at once
BEADS = (0.5, 4.0)  # half waves of brightness from the middle of a streak to its end
FWHM = 1.08  # full width at half maximum of the profile (1 - v^2)^2, v in [-1, 1]


@dataclass(frozen=True)
class RainStyle:
    """The look of rain. Lengths are in pixels, chosen for images of 300 to 600 pixels.

    Attributes:
        density: streaks per 1000 pixels of area, over all depths, >= 0.
        density_spread: standard deviation of the logarithm of the density from image to image, >= 0.
        length: shortest (far) and longest (near) streak in pixels.
        width: full width at half maximum of the thinnest (far) and thickest (near) streak in pixels, before ``blur``.
        beading: depth of the bright and dark knots that an oscillating drop leaves along its streak, in [0, 1].
        opacity: S in the middle of the faintest and of the strongest streak, before ``beading`` and ``blur``, each in
            [0, 1]; most are faint.
        angle_mean: direction of fall in degrees from vertical; positive falls to the right. With the spreads, at most
            60 degrees to either side: larger draws are clipped.
        angle_spread: standard deviation of the direction from image to image, degrees.
        angle_scatter: standard deviation from streak to streak within one image, degrees.
        depth_layers: number of depths, each with a focus of its own, >= 1.
        blur: standard deviation in pixels of the defocus of the nearest layer; the farthest is in focus.
        veil: 1 - t, the share of atmospheric light in the image, in [0, 1].
        atmospheric_light: A, the grey of the veil, in [0, 1].
    """

    density: float
    density_spread: float
    length: tuple[float, float]
    width: tuple[float, float]
    beading: float
    opacity: tuple[float, float]
    angle_mean: float
    angle_spread: float
    angle_scatter: float
    depth_layers: int
    blur: float
    veil: float
    atmospheric_light: float = 0.8

    def __post_init__(self) -> None:
        for name in ('length', 'width', 'opacity'):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise InputError(f'{name} is {(low, high)}; want 0 <= smallest <= largest')
        for name in ('length', 'width'):
            if getattr(self, name)[0] == 0:
                raise InputError(f'{name} begins at 0; want a positive number of pixels')
        for name in ('density', 'density_spread', 'angle_spread', 'angle_scatter', 'blur'):
            if not getattr(self, name) >= 0:
                raise InputError(f'{name} is {getattr(self, name)}; want a number >= 0')
        for name in ('beading', 'opacity', 'veil', 'atmospheric_light'):
            if not 0 <= np.max(getattr(self, name)) <= 1:
                raise InputError(f'{name} is {getattr(self, name)}; want numbers in [0, 1]')
        if self.depth_layers < 1:
            raise InputError(f'depth_layers is {self.depth_layers}; want at least 1')
        if not abs(self.angle_mean) <= STEEPEST:
            raise InputError(f'angle_mean is {self.angle_mean}; want at most {STEEPEST} degrees from vertical')


LIGHT = RainStyle(
    density=3.3, density_spread=0.3, length=(25, 120), width=(0.9, 2.2), beading=0.5, opacity=(0.03, 0.6),
    angle_mean=0.0, angle_spread=11.0, angle_scatter=1.2, depth_layers=3, blur=0.7, veil=0.0,
)  # fmt: skip
HEAVY = RainStyle(
    density=17.0, density_spread=0.2, length=(40, 100), width=(1.4, 2.2), beading=0.2, opacity=(0.15, 0.6),
    angle_mean=0.0, angle_spread=6.0, angle_scatter=4.0, depth_layers=3, blur=0.4, veil=0.05,
)  # fmt: skip
PRESETS: dict[str, RainStyle] = {'light': LIGHT, 'heavy': HEAVY}


def rain_style(name: str) -> RainStyle:
    """Return the preset of that name.

    Raises:
        InputError: there is none.
    """
    if name not in PRESETS:
        raise InputError(f'no rain style {name!r}{did_you_mean(name, PRESETS)}')
    return PRESETS[name]


def streak_layer(height: int, width: int, style: RainStyle, rng: np.random.Generator) -> np.ndarray:
    """Draw the rain of one image: S, float32 ``(height, width)`` in [0, 1], 0 where no streak is.

    Streaks meet as in the screen blend: their optical depths tau = -log(1 - S) add up, so neither the order of the
    streaks nor that of the layers matters, and S = 1 - exp(-sum tau) never leaves [0, 1). Every streak is drawn by
    itself, with a length, width, angle, opacity and sub-pixel place of its own; depth d runs from 0 (far) to 1 (near)
    and moves length and width geometrically through their ranges.

    Args:
        height: rows, >= 1.
        width: columns, >= 1.
        style: what the rain looks like.
        rng: the only source of chance; the same state gives the same layer.
    """
    if height < 1 or width < 1:
        raise InputError(f'a streak layer of {height} x {width} pixels is empty; want at least 1 x 1')
    density = style.density * np.exp(style.density_spread * rng.standard_normal())
    angle = style.angle_mean + style.angle_spread * rng.standard_normal()
    nearness = np.arange(style.depth_layers) / style.depth_layers  # where each slab of depth begins
    # at a distance z a pixel sees an area of z^2, and length falls as 1/z
    share = (style.length[0] / style.length[1]) ** (2 * nearness)
    share /= share.sum()

    tau = np.zeros((height, width), np.float32)
    for begin, part in zip(nearness, share, strict=True):
        layer = _draw_slab(height, width, style, float(begin), density * part / 1000, angle, rng)
        sigma = style.blur * begin * style.depth_layers / max(style.depth_layers - 1, 1)
        if sigma > 0:
            # replicate suits an image of one pixel too
            layer = cv2.GaussianBlur(layer, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        tau += layer
    return 1 - np.exp(-tau)


def _draw_slab(
    height: int, width: int, style: RainStyle, begin: float, rate: float, angle: float, rng: np.random.Generator
) -> np.ndarray:
    """Optical depth of the streaks of one slab of depth, float32 ``(height, width)``, >= 0.

    Args:
        height: rows.
        width: columns.
        style: what the rain looks like.
        begin: nearness at which the slab begins; it ends ``1 / depth_layers`` further.
        rate: streaks per pixel of area.
        angle: of the image, degrees.
        rng: the source of chance.
    """
    margin = style.length[1] / 2 + style.width[1]  # a streak whose centre is farther outside cannot reach in
    n = rng.poisson(rate * (height + 2 * margin) * (width + 2 * margin))
    depth = begin + rng.random(n) / style.depth_layers
    theta = np.radians(np.clip(angle + style.angle_scatter * rng.standard_normal(n), -STEEPEST, STEEPEST))
    faint, strong = style.opacity
    opacity = faint + (strong - faint) * rng.random(n) ** 2

    # a profile narrower than its pixel slips between pixel centres: draw it one pixel wide and fainter instead
    radius = style.width[0] * (style.width[1] / style.width[0]) ** depth / FWHM
    drawn = np.maximum(radius, 1.0)
    streaks = _Streaks(
        y=rng.uniform(-margin, height + margin, n),
        x=rng.uniform(-margin, width + margin, n),
        half_height=style.length[0] * (style.length[1] / style.length[0]) ** depth / 2 * np.cos(theta),
        half_width=drawn / np.cos(theta),
        slope=np.tan(theta),
        tau=-np.log1p(-np.minimum(opacity, MOST_OPAQUE)) * radius / drawn,
        bead_waves=np.pi * rng.uniform(*BEADS, n),
        bead_phase=rng.uniform(0, 2 * np.pi, n),
    )
    return _draw_streaks(height, width, streaks, style.beading)


@dataclass(frozen=True)
class _Streaks:
    """Streaks as ``(n,)`` arrays, in pixels of the image.

    Attributes:
        y: row of the centre, may lie outside.
        x: column of the centre, may lie outside.
        half_height: half the rows from end to end.
        half_width: half the columns of a cut along a row.
        slope: columns to the right for each row down.
        tau: optical depth in the middle.
        bead_waves: radians of the oscillation from the middle to an end.
        bead_phase: radians.
    """

    y: np.ndarray
    x: np.ndarray
    half_height: np.ndarray
    half_width: np.ndarray
    slope: np.ndarray
    tau: np.ndarray
    bead_waves: np.ndarray
    bead_phase: np.ndarray


def _draw_streaks(height: int, width: int, streaks: _Streaks, beading: float) -> np.ndarray:
    """Sum of streaks tau (1 - u^2) (1 + beading cos(waves u + phase)) (1 - v^2)^2, float32 ``(height, width)``.

    u in [-1, 1] runs along a streak, v in [-1, 1] across it: both are computed at the centres of the pixels, so that
    streaks are smooth at every angle and place. v is measured along the row, which is the distance from the axis
    divided by cos(theta), as ``half_width`` is.
    """
    first = np.clip(np.ceil(streaks.y - streaks.half_height), 0, height).astype(np.int64)
    last = np.clip(np.floor(streaks.y + streaks.half_height), -1, height - 1).astype(np.int64)
    rows = np.maximum(last - first + 1, 0)

    reach = int(np.ceil(2 * streaks.half_width.max(initial=1.0)))  # columns of a streak in one row, at most
    canvas = np.zeros((height, width + 2 * reach), np.float32)  # a margin for what is drawn beyond the border
    # each batch costs a pass over the canvas, and memory for its samples: neither may grow out of hand
    batch = np.cumsum(rows) * reach // max(SMALLEST_BATCH, canvas.size // 4)
    for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(batch)) + 1):
        samples = _sample_streaks(part, first, rows, streaks, width, reach, beading)
        canvas += np.bincount(*samples, minlength=canvas.size).reshape(canvas.shape)
    return np.ascontiguousarray(canvas[:, reach : reach + width])


def _sample_streaks(
    part: np.ndarray, first: np.ndarray, rows: np.ndarray, streaks: _Streaks, width: int, reach: int, beading: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where the streaks ``part`` meet pixels of the canvas, and with which optical depth: two arrays ``(reach * m,)``.

    Everything is an array over the m rows of all streaks, then over ``reach`` pixels in each.
    """
    streak = np.repeat(part, rows[part])  # (m,)
    begins = np.cumsum(rows[part]) - rows[part]
    row = np.arange(len(streak)) - np.repeat(begins - first[part], rows[part])
    centre = streaks.x[streak] + (row - streaks.y[streak]) * streaks.slope[streak]
    left = np.floor(centre - streaks.half_width[streak]).astype(np.int64) + 1
    inside = (left > -reach) & (left < width)
    streak, row, centre, left = streak[inside], row[inside], centre[inside], left[inside]

    # float32, and the long axis last: several times faster
    u = ((row - streaks.y[streak]) / streaks.half_height[streak]).astype(np.float32)
    waves, phase = (a.astype(np.float32)[streak] for a in (streaks.bead_waves, streaks.bead_phase))
    along = streaks.tau.astype(np.float32)[streak] * (1 - u**2) * (1 + beading * np.cos(waves * u + phase))
    column = np.arange(reach)[:, None]
    v_left = ((left - centre) / streaks.half_width[streak]).astype(np.float32)
    v_step = (1 / streaks.half_width).astype(np.float32)[streak]
    v = v_left + v_step * column.astype(np.float32)  # (reach, m)
    tau = along * np.maximum(1 - v * v, 0) ** 2
    index = row * (width + 2 * reach) + left + reach + column
    return index.ravel(), tau.ravel()


def add_rain(
    clean: np.ndarray, style: RainStyle, rng: np.random.Generator, layer: np.ndarray | None = None
) -> np.ndarray:
    """Render rain on a clean photo: O = t (B ⊕ S) + (1 - t) A, uint8 ``(H, W, 3)``.

    Streaks are grey and only brighten; the veil alone may darken, towards the atmospheric light.

    Args:
        clean: B, ``(H, W, 3)`` uint8 BGR.
        style: what the rain looks like; with ``layer``, its veil alone is used.
        rng: the only source of chance; the same state gives the same image.
        layer: S from elsewhere instead of drawn, ``(h, w)`` or ``(h, w, 3)`` of any size, uint8, or floating in
            [0, 1]. A larger one is cropped at a random place, a smaller one continued by reflection.
    """
    if clean.dtype != np.uint8 or clean.ndim != 3 or clean.shape[2] != 3 or clean.size == 0:
        raise InputError(f'the clean image is {clean.dtype} of shape {clean.shape}; want uint8 (H, W, 3) in BGR order')
    height, width = clean.shape[:2]
    if layer is None:
        streaks = streak_layer(height, width, style, rng)
    else:
        streaks = fit_layer(layer, height, width, rng)
    return np.rint(lay_over(clean, streaks, style)).astype(np.uint8)


def lay_over(clean: np.ndarray, streaks: np.ndarray, style: RainStyle) -> np.ndarray:
    """Compute O = t (B ⊕ S) + (1 - t) A, float32 ``(H, W, 3)`` in [0, 255].

    Args:
        clean: B, ``(H, W, 3)`` uint8.
        streaks: S, ``(H, W)`` or ``(H, W, 3)`` in [0, 1].
        style: its veil is 1 - t, its atmospheric light A.
    """
    background = clean.astype(np.float32)
    s = streaks.reshape(*clean.shape[:2], -1)  # (H, W, 1 or 3)
    rainy = background + s * (255 - background)
    return (1 - style.veil) * rainy + style.veil * 255 * style.atmospheric_light


def fit_layer(layer: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Fit a streak image of any size to ``(height, width)`` or ``(height, width, 3)``, float32 in [0, 1]."""
    if layer.ndim not in (2, 3) or layer.shape[2:] not in ((), (1,), (3,)) or layer.size == 0:
        raise InputError(f'the streak layer has shape {layer.shape}; want (h, w) or (h, w, 3), not empty')
    if layer.dtype == np.uint8:
        layer = layer.astype(np.float32) / 255
    elif not np.issubdtype(layer.dtype, np.floating):
        raise InputError(f'the streak layer is {layer.dtype}; want uint8, or floating in [0, 1]')
    elif not (layer.min() >= 0 and layer.max() <= 1):
        raise InputError(f'the streak layer runs from {layer.min()} to {layer.max()}; want [0, 1]: divide it')
    top = int(rng.integers(max(layer.shape[0] - height, 0) + 1))
    left = int(rng.integers(max(layer.shape[1] - width, 0) + 1))
    layer = layer[top : top + height, left : left + width].astype(np.float32)
    missing = [(0, height - layer.shape[0]), (0, width - layer.shape[1])] + [(0, 0)] * (layer.ndim - 2)
    return np.pad(layer, missing, mode='symmetric')
