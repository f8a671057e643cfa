"""Which images of a validation or a test stay on the disk, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ddsa_arch.files.images import write_image
from ddsa_arch.models.restore import to_uint8

STRIPS = Path('validation', 'strips')  # in an experiment's folder: <set>/<stem>_<iteration>.png
RAINY, TARGET = 'rainy', 'target'  # in the place of the iteration


@dataclass(frozen=True)
class KeptImage:
    """The files in which one image is kept.

    Args:
        derained: gets the result, if ``val.save_img`` asks for it.
        strip: gets the result for the summary's strips, and the rainy image and the target beside it.
    """

    derained: Path | None = None
    strip: Path | None = None

    @classmethod
    def of(
        cls, opt: dict[str, Any], set_name: str, place: int, stem: str, iteration: int | str, save_img: bool
    ) -> KeptImage:
        """Return the files for the image at a place among those of this process."""
        saved, strip = None, None
        if opt['is_train']:
            if save_img:
                saved = Path(opt['path']['visualization']) / stem / f'{stem}_{iteration}.png'
            if place * opt['world_size'] + opt['rank'] < (opt['logger'].get('strips') or 0):
                strip = Path(opt['path']['experiments_root']) / STRIPS / set_name / f'{stem}_{iteration}.png'
        elif save_img:
            suffix = opt['val'].get('suffix')
            name = f'{stem}_{suffix}.png' if suffix else f'{stem}.png'
            saved = Path(opt['path']['visualization']) / set_name / name
        return cls(saved, strip)

    def write(self, derained: np.ndarray, rainy: Tensor, target: np.ndarray | None) -> None:
        """Write the files that this image gets.

        Args:
            derained: uint8 BGR.
            rainy: ``(1, 3, H, W)`` in [0, 1].
            target: uint8 BGR, if there is one.
        """
        if self.derained:
            write_image(self.derained, derained)
        if self.strip:
            write_image(self.strip, derained)
            stem = self.strip.stem.rsplit('_', 1)[0]
            beside = {label: self.strip.with_name(f'{stem}_{label}.png') for label in (RAINY, TARGET)}
            if not beside[RAINY].exists():
                write_image(beside[RAINY], to_uint8(rainy))
            if target is not None and not beside[TARGET].exists():
                write_image(beside[TARGET], target)


def drop_later_strips(experiment: str | Path, iteration: int) -> None:
    """Remove the strips' images of later iterations, which a resumed run makes anew."""
    for path in (Path(experiment) / STRIPS).glob('*/*.png'):
        label = path.stem.rsplit('_', 1)[-1]
        if label.isdecimal() and int(label) > iteration:
            path.unlink(missing_ok=True)
