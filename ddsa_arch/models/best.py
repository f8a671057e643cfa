"""One number over several validation sets, which picks the best weights and can end a training early."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ddsa_arch.errors import InputError, did_you_mean


class BestWeights:
    """Follows the mean of a metric over the validation sets, from one validation to the next.

    Args:
        options: ``val.best``: ``metric``, ``weights`` by set (absent: all sets alike), ``patience``.
        metrics: ``val.metrics``.
        sets: names of the validation sets, in the order in which they are validated.

    Attributes:
        value: the best mean so far, NaN before there is one.
        iteration: when it was found.
        waited: validations since.

    Raises:
        InputError: a metric or a set that is not validated, or weights that say nothing.
    """

    def __init__(
        self, options: Mapping[str, Any], metrics: Mapping[str, Mapping[str, Any]], sets: Sequence[str]
    ) -> None:
        self.metric = options.get('metric') or next(iter(metrics), '')
        if self.metric not in metrics:
            hint = did_you_mean(self.metric, metrics)
            raise InputError(f'val.best.metric: {self.metric!r} is no metric of val.metrics{hint}')
        self.weights: dict[str, Any] = dict(options.get('weights') or dict.fromkeys(sets, 1.0))
        for name, weight in self.weights.items():
            if name not in sets:
                raise InputError(f'val.best.weights.{name}: no validation set of this name{did_you_mean(name, sets)}')
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise InputError(f'val.best.weights.{name}: {weight!r}, wanted a number from 0 up')
        if not sum(self.weights.values()) > 0:
            raise InputError('val.best: no validation set, or all weights are 0; add datasets.val, or drop val.best')
        better = metrics[self.metric].get('better', 'higher')
        self.sign = 1 if better == 'higher' else -1
        self.patience = options.get('patience')
        self.value, self.iteration, self.waited = math.nan, 0, 0
        self._scores: dict[str, float] = {}
        self._scored_at = -1

    def add(self, name: str, means: Mapping[str, float], iteration: int) -> float | None:
        """Take the scores of one set; return the mean over the sets when this was the last of them.

        Args:
            name: of the set.
            means: by metric.
            iteration: of the training.
        """
        if iteration != self._scored_at:
            self._scores, self._scored_at = {}, iteration
        self._scores[name] = means.get(self.metric, math.nan)
        if any(name not in self._scores for name, weight in self.weights.items() if weight):
            return None
        total = sum(weight * self._scores[name] for name, weight in self.weights.items() if weight)
        mean = total / sum(self.weights.values())
        if math.isnan(self.value) or self.sign * mean > self.sign * self.value:
            self.value, self.iteration, self.waited = mean, iteration, 0
        elif iteration > self.iteration:
            self.waited += 1
        return mean

    @property
    def is_over(self) -> bool:
        """Whether so many validations brought nothing better that the training shall end."""
        return self.patience is not None and self.waited >= self.patience

    def state(self) -> dict[str, Any]:
        """Return what a training state carries."""
        return {'value': self.value, 'iteration': self.iteration, 'waited': self.waited}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave."""
        if state:
            self.value, self.iteration, self.waited = state['value'], state['iteration'], state['waited']
