"""How many tokens are kept: the only place where budgets are rounded, in exact integer arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from numbers import Integral, Real
from typing import Literal

from vlm_pruner.errors import PlanError

__all__ = [
    "EQUAL", "Budget", "Keep", "check_keep", "keep_count", "layer_average", "parse_keep", "share_budget",
    "split_budget",
]  # fmt: skip

EQUAL = ("nominal", "layer-average", "flops")
"""What compared methods have in common: the tokens that were asked for, or a cost."""

Keep = int | float
"""A budget: an int counts tokens per image, a float is a share of them (`1` is one token, `1.0` is all)."""


Budget = Literal["fixed", "ceiling", "mean"]
"""What `keep` means to a method. `fixed`: exactly so many tokens are kept. `ceiling`: at most so many. `mean`: so many
on average over the images of one call, which share the budget and may have different sizes."""


def check_keep(keep: object) -> Keep:
    """`keep` as a plain int or float.

    Raises:
        PlanError: not a number, a bool, an int below 1, or a float outside (0, 1].
    """
    allowed = "keep is a whole number of tokens per image (64) or a share in (0, 1] (0.111)"
    if isinstance(keep, bool) or not isinstance(keep, Real):
        raise PlanError(f"keep={keep!r} is not a number: {allowed}")
    if isinstance(keep, Integral):
        if keep < 1:
            raise PlanError(f"keep={int(keep)} keeps nothing: {allowed}")
        return int(keep)
    share = float(keep)
    if not 0.0 < share <= 1.0:
        raise PlanError(f"keep={share!r} is not a share in (0, 1]: {allowed}")
    return share


def parse_keep(text: str) -> Keep:
    """ "64" is tokens per image, "0.111" a share of them.

    Raises:
        PlanError: not a number, or one that keeps nothing or more than all.
    """
    for kind in (int, float):
        try:
            return check_keep(kind(text))
        except ValueError as error:
            if isinstance(error, PlanError):
                raise
    return check_keep(text)


def keep_count(total: int, keep: Keep) -> int:
    """Tokens that stay of `total`: `keep` itself if it is an int, else ceil(total * keep), always at least 1.

    The share is read as the decimal number that was written, so that 0.1 of 30 tokens is 3, never 4.

    Raises:
        PlanError: `total` < 1, an invalid `keep`, or more tokens asked for than there are.
    """
    if total < 1:
        raise PlanError(f"there are no visual tokens to choose from (total={total})")
    keep = check_keep(keep)
    if isinstance(keep, int):
        if keep > total:
            raise PlanError(f"keep={keep} asks for more tokens than the image has ({total})")
        return keep
    exact = Fraction(repr(keep)) * total
    return max(1, -(-exact.numerator // exact.denominator))


def split_budget(totals: Sequence[int], keep: int) -> list[int]:
    """Deal `keep` tokens out over parts of the given sizes in proportion (largest remainder), at least 1 each.

    Sums to `keep` exactly, never above a part's own size; ties go to the earlier part.

    Raises:
        PlanError: fewer tokens than parts, or more than sum(totals).
    """
    total = sum(totals)
    if not len(totals) <= keep <= total:
        raise PlanError(f"cannot split {keep} tokens over {len(totals)} parts that hold {total} together")
    quota = [1 + (keep - len(totals)) * (n - 1) // max(1, total - len(totals)) for n in totals]
    remainder = [(keep - len(totals)) * (n - 1) % max(1, total - len(totals)) for n in totals]
    for i in sorted(range(len(totals)), key=lambda i: (-remainder[i], i))[: keep - sum(quota)]:
        quota[i] += 1
    return quota


def share_budget(weights: Sequence[float], sizes: Sequence[int], keep: int) -> list[int]:
    """Deal `keep` tokens out over images in proportion to their weights, at least 1 each and no more than their size.

    Sums to `keep` exactly: what an image cannot take goes to the others, the remainder to the largest fractions and
    there to the earlier image. Weights that are all 0 count alike.

    Raises:
        PlanError: fewer tokens than images, or more than sum(sizes).
    """
    if not len(sizes) <= keep <= sum(sizes):
        raise PlanError(f"cannot share {keep} tokens among {len(sizes)} images that hold {sum(sizes)} together")
    exact = [Fraction(weight) for weight in (weights if any(weights) else [1.0] * len(sizes))]
    low, high = Fraction(0), Fraction(keep) / min(weight for weight in exact if weight) + 1

    def dealt(rate: Fraction) -> list[int]:
        return [min(size, max(1, int(rate * weight))) for weight, size in zip(exact, sizes, strict=True)]

    for _ in range(64):  # the largest rate at which no more than `keep` are dealt out
        middle = (low + high) / 2
        low, high = (middle, high) if sum(dealt(middle)) <= keep else (low, middle)
    counts = dealt(low)
    order = sorted(range(len(sizes)), key=lambda i: (counts[i] - low * exact[i], i))  # largest fraction left over first
    while sum(counts) < keep:
        for i in order:
            if sum(counts) < keep and counts[i] < sizes[i]:
                counts[i] += 1
    return counts


def layer_average(counts: Sequence[int]) -> float:
    """Mean number of tokens per decoder layer; `counts[i]` tokens enter layer i."""
    return sum(counts) / len(counts)
