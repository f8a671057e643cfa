"""The scores that tables, plots and pages show: their names, units, digits and direction."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ddsa_arch.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Score:
    """How a score is named and printed.

    Args:
        name: in option files, CSV and JSON.
        label: for people.
        unit: after the value; '' for none.
        digits: after the point.
        higher_is_better: else the lower value is the better one.
    """

    name: str
    label: str
    unit: str
    digits: int
    higher_is_better: bool

    def show(self, value: float) -> str:
        """Return the value without its unit; a dash where there is none."""
        return f'{value:.{self.digits}f}' if math.isfinite(value) else '-'


SCORES = {
    score.name: score
    for score in (
        Score('psnr', 'PSNR', 'dB', 2, True),
        Score('ssim', 'SSIM', '', 4, True),
        Score('niqe', 'NIQE', '', 3, False),
        Score('brisque', 'BRISQUE', '', 3, False),
    )
}


def score_named(name: str) -> Score:
    """
    Raises:
        InputError: no such score.
    """
    if name not in SCORES:
        raise InputError(f'{name!r} is no score{did_you_mean(name, SCORES)}; known are {", ".join(SCORES)}')
    return SCORES[name]
