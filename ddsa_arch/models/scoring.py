"""Score one image by the metrics that options name; what says nothing about an image becomes a note."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import METRIC_REGISTRY

from ddsa_arch.errors import InputError

IDENTICAL = 'identical to its target'


def needs_target(metric_type: str) -> bool:
    """Whether a registered metric compares with a target."""
    img2 = inspect.signature(METRIC_REGISTRY.get(metric_type)).parameters.get('img2')
    return img2 is not None and img2.default is inspect.Parameter.empty


def score_image(
    image: np.ndarray, target: np.ndarray | None, metrics: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, float], str]:
    """Score an image by each metric, and tell why a value is missing or infinite.

    Args:
        image: ``(H, W, 3)`` uint8 BGR.
        target: the same shape; None where there is none.
        metrics: by name, ``{type, ...}`` as option files have them.

    Returns:
        Values by name, NaN where a metric says nothing, and a note, '' if there is nothing to note.
    """
    values: dict[str, float] = {}
    notes: dict[str, None] = {}
    for name, options in metrics.items():
        values[name], note = _score(image, target, options)
        if note:
            notes[note] = None  # once each
    return values, '; '.join(notes)


def _score(image: np.ndarray, target: np.ndarray | None, options: Mapping[str, Any]) -> tuple[float, str]:
    if target is None and needs_target(options['type']):
        return math.nan, 'no target'
    try:
        value = float(calculate_metric({'img': image, 'img2': target}, dict(options)))
    except InputError as error:
        return math.nan, str(error)
    if math.isinf(value):
        return value, IDENTICAL
    return value, '' if math.isfinite(value) else f'{options["type"]} is not a number'
