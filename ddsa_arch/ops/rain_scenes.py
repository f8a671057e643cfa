"""Rain as varied as photos show it: scaled streaks, haze that grows with depth, exposure, JPEG, structures.

    O = t (B ⊕ S) + (1 - t) A,    t = 1 - veil d

as in ``ops.rain``, with a depth d in [0, 1] that varies smoothly over the image instead of being the same everywhere.
Scenes are drawn from ranges, one draw for each sample. Structures are bright lines that no rain made: they are drawn
into the clean image, so that a network learns to keep fences, lattices, poles, window bars and the joints of bricks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import cv2
import numpy as np

from ddsa_arch.errors import InputError
from ddsa_arch.ops.rain import RainStyle, fit_layer, lay_over, streak_layer

Range = tuple[float, float]

AIRLIGHT: Range = (0.6, 0.95)  # grey of the haze
SUBPIXEL_BITS = 4  # of cv2's lines
DEPTH_CELLS = 3  # of the coarse grid that the depth is drawn on
STRUCTURES = ('fence', 'lattice', 'poles', 'window', 'wall')
SECOND_STRUCTURE = 0.3  # share of images with one structure in front of another
RECEDING = 0.4  # share of structures that go away from the camera
FORESHORTENING = 3.0  # by which those become narrower, at most
DEFOCUS: Range = (0.4, 3.0)  # standard deviation of the blur of structures in pixels


# what SceneRanges has a range of, and the smallest and largest values in it
RANGES: dict[str, Range] = {
    'streak_scale': (0.1, 20.0), 'streak_density': (0.0, 20.0), 'veil': (0.0, 1.0), 'gain': (0.05, 20.0),
    'gamma': (0.1, 10.0), 'jpeg_quality': (1.0, 100.0),
}  # fmt: skip
SHARES = ('drawn_share', 'rainless_share', 'structures_share')


@dataclass(frozen=True)
class SceneRanges:
    """What varies from sample to sample; each range is drawn from uniformly, ``streak_scale`` on a logarithmic scale.

    Attributes:
        streak_scale: factor on the length, width and blur of drawn streaks and on the size of streak layers; photos of
            2 to 12 megapixels show rain 2 to 6 times as large as the benchmarks do.
        streak_density: factor on the number of drawn streaks, >= 0; rain in photos is often a curtain of fine ones.
        veil: share of atmospheric light at the farthest point, in [0, 1].
        gain: factor on the brightness of the clean photo, > 0; it comes before the rain.
        gamma: exponent of the clean photo, > 0; likewise.
        jpeg_quality: of the rainy image, 1 to 100; (100, 100) leaves it as it is.
        drawn_share: share of samples with drawn streaks where there are streak layers too, in [0, 1].
        rainless_share: share of samples whose input is their target, in [0, 1].
        structures_share: share of samples with bright structures in input and target, in [0, 1].
    """

    streak_scale: Range = (1.0, 1.0)
    streak_density: Range = (1.0, 1.0)
    veil: Range = (0.0, 0.0)
    gain: Range = (1.0, 1.0)
    gamma: Range = (1.0, 1.0)
    jpeg_quality: Range = (100.0, 100.0)
    drawn_share: float = 0.0
    rainless_share: float = 0.0
    structures_share: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in RANGES:
                least, most = RANGES[field.name]
                if not (isinstance(value, list | tuple) and len(value) == 2 and least <= value[0] <= value[1] <= most):
                    raise InputError(f'{field.name}: {value!r}, wanted [LOW, HIGH] within {least:g} and {most:g}')
            elif not (isinstance(value, int | float) and 0 <= value <= 1):
                raise InputError(f'{field.name}: {value!r}, wanted a share from 0 to 1')


@dataclass(frozen=True)
class Scene:
    """One rainy image, its clean partner, and whether it has rain at all."""

    rainy: np.ndarray
    clean: np.ndarray
    rains: bool


def render_scene(
    photo: np.ndarray,
    style: RainStyle,
    ranges: SceneRanges,
    rng: np.random.Generator,
    layer: Callable[[np.random.Generator], np.ndarray] | None = None,
) -> Scene:
    """Draw a scene and render it.

    Args:
        photo: ``(H, W, 3)`` uint8 BGR, clean.
        style: the look of drawn streaks; its own veil comes on top.
        ranges: what varies.
        rng: the only source of chance.
        layer: gives a streak layer, where there are some.

    Returns:
        Both images uint8 BGR of the photo's size.
    """
    scale = float(np.exp(rng.uniform(*np.log(ranges.streak_scale))))
    density, veil, gain, gamma = (
        float(rng.uniform(*getattr(ranges, name))) for name in ('streak_density', 'veil', 'gain', 'gamma')
    )
    quality = round(rng.uniform(*ranges.jpeg_quality))
    airlight = float(rng.uniform(*AIRLIGHT))
    drawn, rainless, structured = (rng.random() for _ in range(3))
    clean = _expose(photo, gain, gamma)
    if structured < ranges.structures_share:
        clean = draw_structures(clean, rng)
    if rainless < ranges.rainless_share:
        return Scene(clean, clean.copy(), False)
    height, width = clean.shape[:2]
    if layer is None or drawn < ranges.drawn_share:
        streaks = streak_layer(height, width, _scaled(style, scale, density), rng)
    else:
        found = layer(rng)
        if scale != 1:
            found = cv2.resize(found, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        streaks = fit_layer(found, height, width, rng)
    rainy = lay_over(clean, streaks, style)
    if veil > 0:
        haze = (veil * smooth_depth(height, width, rng))[..., None]
        rainy = (1 - haze) * rainy + haze * 255 * airlight
    rainy = np.rint(rainy).astype(np.uint8)
    return Scene(_as_jpeg(rainy, quality) if quality < 100 else rainy, clean, True)


def smooth_depth(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a depth: float32 ``(height, width)`` in [0, 1], 1 at the farthest, smooth, and farther at the top."""
    coarse = rng.random((DEPTH_CELLS + 1, DEPTH_CELLS + 1)) + np.linspace(1.0, 0.0, DEPTH_CELLS + 1)[:, None]
    depth = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(cv2.normalize(depth, np.zeros_like(depth), 0.0, 1.0, cv2.NORM_MINMAX), 0, 1)


def draw_structures(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw bright structures on a copy of a photo: a fence, a lattice, poles, bars of a window, or joints of a wall.

    Some go away from the camera, some have another behind them. Edges are as soft as those of a photo, in focus or out
    of it, and light and grain vary along them.

    Args:
        image: ``(H, W, 3)`` uint8 BGR.
        rng: the only source of chance.
    """
    kinds = rng.choice(STRUCTURES, size=2 if rng.random() < SECOND_STRUCTURE else 1, replace=False)
    for kind in kinds:
        image = _draw_structure(image, kind, rng)
    return image


def _draw_structure(image: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    thick = max(1, round(rng.uniform(1, 6)))
    shrink = float(rng.uniform(1, FORESHORTENING)) if kind != 'poles' and rng.random() < RECEDING else 1.0
    draw = {'wall': _wall, 'lattice': _lattice}.get(kind) or partial(_bars, kind=kind)
    mask: np.ndarray = draw(height, round(shrink * width), thick=thick, rng=rng).astype(np.float32) / 255
    if shrink > 1:
        mask = _receding(mask, width, shrink, rng)
    mask = cv2.GaussianBlur(mask, (0, 0), float(np.exp(rng.uniform(*np.log(DEFOCUS)))))
    background = image.astype(np.float32)
    if kind == 'wall':  # of bricks, which have less texture than most photos
        flat = cv2.GaussianBlur(background, (0, 0), max(2.0, min(height, width) / 12))
        background = flat + float(rng.uniform(0.2, 1.0)) * (background - flat)
    colour = rng.uniform(150, 255) + rng.normal(0, 12, 3)
    light = 1 - float(rng.uniform(0, 0.3)) * smooth_depth(height, width, rng)
    grain = rng.normal(0, rng.uniform(0, 8), (height, width))
    opacity = rng.uniform(0.3, 1.0)
    mask = (opacity * mask)[..., None]
    painted = light[..., None] * colour + grain[..., None]
    return np.clip(np.rint((1 - mask) * background + mask * painted), 0, 255).astype(np.uint8)


def _receding(mask: np.ndarray, width: int, shrink: float, rng: np.random.Generator) -> np.ndarray:
    """Bring what stands in a plane to a width that is so many times smaller, with one side farther than the other."""
    height, wide = mask.shape
    mask = cv2.GaussianBlur(mask, (0, 0), sigmaX=shrink / 2, sigmaY=0.3)  # so that thin lines do not alias
    nearer = float(rng.uniform(0, 0.5)) * height
    plane = np.array([[0, 0], [wide, 0], [wide, height], [0, height]], np.float32)
    seen = np.array([[0, -nearer], [width, 0], [width, height], [0, height + nearer]], np.float32)
    if rng.random() < 0.5:
        seen[:, 0] = width - seen[:, 0]
    return cv2.warpPerspective(mask, cv2.getPerspectiveTransform(plane, seen), (width, height))


def _bars(height: int, width: int, thick: int, rng: np.random.Generator, kind: str) -> np.ndarray:
    """Return where the bars of a fence, of poles or of a window are: uint8 ``(height, width)``, 255 inside."""
    mask = np.zeros((height, width), np.uint8)
    lean = np.tan(np.radians(rng.normal(0, 4)))  # cameras are not held straight
    count = {'fence': rng.integers(5, 24), 'poles': rng.integers(1, 4), 'window': rng.integers(2, 6)}[kind]
    thick = 2 * thick if kind == 'poles' else max(1, min(thick, width // (3 * int(count))))
    places = rng.random(count) if kind == 'poles' else (np.arange(count) + rng.random()) / count
    for x in places * width:
        _line(mask, (x, 0), (x + lean * height, height), thick)
    if kind != 'poles':
        for y in rng.random(2 if kind == 'fence' else count) * height:
            _line(mask, (0, y), (width, y - lean * width), thick)
    return mask


def _lattice(height: int, width: int, thick: int, rng: np.random.Generator) -> np.ndarray:
    """Return where two sets of parallel lines are, as in a grille or a trellis at any angle, likewise."""
    mask = np.zeros((height, width), np.uint8)
    gap = rng.uniform(5, 30)
    thick = max(1, min(thick, int(gap / 3)))
    reach = np.hypot(height, width)
    first = rng.uniform(0, np.pi)
    for angle in (first, first + np.pi / 2 + rng.normal(0, 0.2)):
        along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        for place in np.arange(-reach / 2, reach / 2, gap) + rng.uniform(0, gap):
            middle = np.array([width / 2, height / 2]) + place * across
            _line(mask, middle - reach * along, middle + reach * along, thick)
    return mask


def _wall(height: int, width: int, thick: int, rng: np.random.Generator) -> np.ndarray:
    """Return where the joints of a brick wall are, likewise; bricks are not all of one size."""
    row, brick = rng.uniform(8, 40), rng.uniform(20, 90)
    lean = np.tan(np.radians(rng.normal(0, 4)))
    mask = np.zeros((height, width), np.uint8)
    uneven, thick = 0.06 * row, min(thick, int(row / 4))
    for place, top in enumerate(np.arange(-row - abs(lean) * width, height + abs(lean) * width + row, row)):
        top += rng.normal(0, uneven)
        _line(mask, (0, top), (width, top - lean * width), thick)
        for left in np.arange(-brick, width + brick, brick) + (brick / 2 if place % 2 else 0):
            x, y = left + rng.normal(0, uneven), top - lean * left
            _line(mask, (x, y), (x + lean * row, y + row), thick)
    return mask


def _line(mask: np.ndarray, begin: Sequence[float], end: Sequence[float], thick: int) -> None:
    """Draw a smooth line between places that need not be whole pixels."""
    ends = [tuple(round(2**SUBPIXEL_BITS * float(value)) for value in place) for place in (begin, end)]
    cv2.line(mask, ends[0], ends[1], 255, thick, cv2.LINE_AA, SUBPIXEL_BITS)


def _scaled(style: RainStyle, scale: float, density: float) -> RainStyle:
    """Return the style with streaks that are larger and as much fewer, and then so many times more."""
    length, width = ((low * scale, high * scale) for low, high in (style.length, style.width))
    number = density * style.density / scale**2
    return replace(style, length=length, width=width, blur=style.blur * scale, density=number)


def _expose(photo: np.ndarray, gain: float, gamma: float) -> np.ndarray:
    if gain == 1 and gamma == 1:
        return photo
    values = 255 * np.clip(gain * (np.arange(256) / 255) ** gamma, 0, 1)
    return cv2.LUT(photo, np.rint(values).astype(np.uint8))


def _as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    _, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None  # as it was encoded here
    return decoded
