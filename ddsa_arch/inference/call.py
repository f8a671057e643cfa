"""What one call of a derainer asks for: views of the image, how strong the result is, and who hears of the progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddsa_arch.errors import InputError

ENSEMBLES = (1, 4, 8)  # views of an image of which the mean is taken

Report = Callable[[float], None]  # gets the part that is done, rising to 1


class Call(NamedTuple):
    """What one call asks for."""

    ensemble: int
    strength: float
    progress: Report | None


def checked_ensemble(views: int) -> int:
    """Return a number of views if it is one of those that there are.

    Raises:
        InputError: it is not.
    """
    if type(views) is not int or views not in ENSEMBLES:
        raise InputError(f'ensemble: {views!r}; wanted one of {", ".join(map(str, ENSEMBLES))}')
    return views


def checked_strength(strength: float) -> float:
    """Return a strength if it is a number from 0 to 1.

    Raises:
        InputError: it is not.
    """
    number = isinstance(strength, int | float | np.floating) and not isinstance(strength, bool)
    if not (number and 0 <= strength <= 1):
        raise InputError(f'strength: {strength!r}; wanted a number from 0 (the image as it was) to 1')
    return float(strength)


def blended(rain: Tensor, derained: Tensor, call: Call) -> Tensor:
    """Return the clamped blend of an image and what the network made of it.

    Raises:
        InputError: the network gave no numbers.
    """
    if not bool(derained.isfinite().all()):
        raise InputError('the network gives numbers that are not finite; are these weights whole?')
    derained = derained.clamp(0, 1)
    return derained if call.strength == 1 else torch.lerp(rain, derained, call.strength)


class View(NamedTuple):
    """One way to look at an image: quarter turns, after a flip or not."""

    flip: bool
    turns: int

    def of(self, image: Tensor) -> Tensor:
        return (image.flip(-1) if self.flip else image).rot90(self.turns, (-2, -1))

    def back(self, image: Tensor) -> Tensor:
        image = image.rot90(-self.turns, (-2, -1))
        return image.flip(-1) if self.flip else image


def views(count: int) -> list[View]:
    """Return the image as it is, its 4 flips, or its 8 flips and quarter turns."""
    flips = (False,) if count == 1 else (False, True)
    return [View(flip, turns) for flip in flips for turns in range(0, 4, 4 * len(flips) // count)]
