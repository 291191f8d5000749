"""Accuracy, retention and paired differences with bootstrap intervals.

The unit that is resampled is the scene: all questions of one picture come and go together, because they share its kept
tokens. With one question a scene this is the plain bootstrap over questions. Every quantity of one `Bootstrap` uses the
same draws, so any two methods are compared in pairs.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm_pruner.errors import PlanError

__all__ = ["Bootstrap", "Interval"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A point estimate with the bounds of its 95 % percentile interval, all in the unit of the quantity."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    def rounded(self, digits: int = 4) -> list[float]:
        """[value, low, high] for JSON."""
        return [round(x, digits) for x in (self.value, self.low, self.high)]


class Bootstrap:
    """Fixed resamples of n questions. `correct` arguments are [n] or, for several seeds of a method, [seeds, n]."""

    def __init__(self, types: Sequence[str], scenes: Sequence[Hashable], *, draws: int = 2000, seed: int = 0) -> None:
        """`types[i]` and `scenes[i]` belong to question i.

        Raises:
            PlanError: no question, or lists of different lengths.
        """
        if not types or len(types) != len(scenes):
            raise PlanError(f"a bootstrap needs questions with a type and a scene each: {len(types)}, {len(scenes)}")
        self.types = sorted(set(types))
        self._member = np.array([[t == name for t in types] for name in self.types], dtype=np.float64)  # [types, n]
        known = {scene: i for i, scene in enumerate(dict.fromkeys(scenes))}
        of_question = np.array([known[scene] for scene in scenes])  # [n]
        picks = np.random.default_rng(seed).integers(len(known), size=(draws, len(known)))
        counts = np.stack([np.bincount(pick, minlength=len(known)) for pick in picks])  # [draws, scenes]
        data = np.ones((1, len(types)))
        self._weights = np.concatenate([data, counts[:, of_question].astype(np.float64)])  # [1 + draws, n]
        self._totals = self._weights @ self._member.T  # [1 + draws, types]
        self._known: dict[bytes, Array] = {}  # tables compare the same few answers again and again

    def per_type(self, correct: ArrayLike) -> Array:
        """[1 + draws, types] accuracy, read-only; row 0 is the data. A type that a draw does not contain is nan there.

        Answers that were asked about before cost nothing.
        """
        values = np.atleast_2d(np.asarray(correct, dtype=np.float64)).mean(0)  # [n]
        if values.shape != self._weights.shape[1:]:
            raise PlanError(f"answers to {values.shape[0]} questions, the bootstrap has {self._weights.shape[1]}")
        key = values.tobytes()
        if key not in self._known:
            self._known[key] = _divide(self._weights @ (self._member * values).T, self._totals)
            self._known[key].setflags(write=False)
        return self._known[key]

    def type_accuracy(self, correct: ArrayLike) -> dict[str, Interval]:
        """Accuracy of each question type."""
        samples = self.per_type(correct)
        return {name: _interval(samples[:, i]) for i, name in enumerate(self.types)}

    def accuracy(self, correct: ArrayLike) -> Interval:
        """Mean over question types of their accuracies."""
        return _interval(_mean(self.per_type(correct)))

    def retention(self, correct: ArrayLike, full: ArrayLike) -> Interval:
        """Mean over types of accuracy / unpruned accuracy: how the field averages over its benchmarks."""
        return _interval(self._retention(correct, full))

    def accuracy_difference(self, a: ArrayLike, b: ArrayLike) -> Interval:
        """Accuracy of `a` less that of `b`, paired."""
        return _interval(_mean(self.per_type(a) - self.per_type(b)))

    def retention_difference(self, a: ArrayLike, b: ArrayLike, full: ArrayLike) -> Interval:
        """Retention of `a` less that of `b`, paired."""
        return _interval(self._retention(a, full) - self._retention(b, full))

    def _retention(self, correct: ArrayLike, full: ArrayLike) -> Array:
        return _mean(_divide(self.per_type(correct), self.per_type(full)))


def _divide(a: Array, b: Array) -> Array:
    return np.divide(a, b, out=np.full_like(a, np.nan), where=np.nan_to_num(b) > 0)


def _mean(samples: Array) -> Array:
    """[draws] mean over the types that are there."""
    there = ~np.isnan(samples)
    return _divide(np.where(there, samples, 0.0).sum(1), there.sum(1).astype(np.float64))


def _interval(samples: Array) -> Interval:
    """Row 0 is the estimate, the rest are the draws."""
    draws = samples[1:][~np.isnan(samples[1:])]
    low, high = np.quantile(draws, [0.025, 0.975]) if len(draws) else (samples[0], samples[0])
    return Interval(float(samples[0]), float(low), float(high))
