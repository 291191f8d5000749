"""How sure a mean over a few pictures is: tail probabilities and one-sided bounds without any assumed distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vlm_pruner.errors import PlanError

__all__ = ["least_pictures", "tail", "upper_bound"]


def tail(losses: Sequence[float], most: float) -> float:
    """Probability of a mean as low as that of `losses`, were the true mean `most`: a p-value of "the loss is larger".

    Exact (binomial) where every loss is 0 or 1; else the Hoeffding-Bentkus inequality, for losses between 0 and 1.
    Source: arXiv:2110.01052, section 3.1.

    Raises:
        PlanError: no losses, or one outside 0 to 1.
    """
    n = len(losses)
    if not n or any(not 0 <= loss <= 1 for loss in losses):
        raise PlanError(f"a bound needs losses between 0 and 1, got {list(losses)[:5]}")
    if most <= 0 or most >= 1:
        return float(most <= 0)
    if all(loss in (0, 1) for loss in losses):
        return _at_most(int(sum(losses)), n, most)
    mean = math.fsum(losses) / n
    low = min(mean, most)
    distance = sum(a * math.log(a / b) for a, b in ((low, most), (1 - low, 1 - most)) if a > 0)
    return min(1.0, math.exp(-n * distance), math.e * _at_most(math.ceil(n * mean - 1e-9), n, most))


def upper_bound(losses: Sequence[float], confidence: float) -> float:
    """The least value below which the true mean lies with `confidence`, to 0.0001."""
    low, high = 0.0, 1.0
    while high - low > 5e-5:
        middle = (low + high) / 2
        low, high = (low, middle) if tail(losses, middle) <= 1 - confidence else (middle, high)
    return high


def least_pictures(most: float, confidence: float) -> int:
    """Pictures without any loss that it takes to show, with `confidence`, that the true loss is below `most`."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - most))


def _at_most(successes: int, n: int, p: float) -> float:
    """Probability of so many successes or fewer in n draws of probability p."""
    terms = (math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(min(successes, n) + 1))
    return min(1.0, math.fsum(terms))
