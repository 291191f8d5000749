"""The constants of the growth, checked once, and the ladder of thresholds that they imply."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vlm_pruner.errors import PlanError

__all__ = ["GrowthRule"]


@dataclass(frozen=True)
class GrowthRule:
    """Buffering for spatial sparsity (arXiv:2512.02700, stage 2).

    Raises:
        PlanError: a constant outside its range.
    """

    spatial_weight: float = 0.5
    threshold: float = 0.8
    threshold_step: float = 0.1
    token_batch: int = 16
    fill: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.spatial_weight) and self.spatial_weight >= 0):
            raise PlanError(f"spatial_weight={self.spatial_weight} must be a finite number >= 0")
        if not (math.isfinite(self.threshold) and self.threshold >= -1):
            raise PlanError(f"threshold={self.threshold} must be a finite number >= -1")
        if not (math.isfinite(self.threshold_step) and self.threshold_step >= 1e-3):
            raise PlanError(f"threshold_step={self.threshold_step} must be a finite number >= 0.001")
        if self.token_batch < 1:
            raise PlanError(f"token_batch={self.token_batch} must be at least 1")

    def thresholds(self) -> list[float]:
        """Threshold of each pass: rises by the step until every token passes; the last is infinite.

        A modulated similarity is at most 1 + spatial_weight, so the ladder has an end. It is climbed by repeated
        addition, as the released code does, so that the roundings agree.
        """
        value, ladder = self.threshold - self.threshold_step, []
        while value <= 1.001 * (1 + self.spatial_weight):
            value += self.threshold_step
            ladder.append(value)
        return [*ladder, math.inf]
