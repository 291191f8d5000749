"""ERASE, its first stage: the share of an image that stays, from the entropy of its own greys.

It acts on pixels before the vision tower and keeps its own number of tokens. The functions are here; there is no place
in a plan yet where a method could ask for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlm_pruner.errors import PlanError
from vlm_pruner.ops.basic import ranking
from vlm_pruner.ops.sync import constant

__all__ = ["entropy", "erase", "share_of"]


def entropy(pixels: Tensor) -> Tensor:
    """[n] float64 entropy, in nats, of the greys of each token of `pixels` [n, p, 3], red, green and blue in 0 ... 255.

    Greys are whole numbers, cut off. They are found in integers: in floating point the same colour may fall on either
    side of one.
    """
    red, green, blue = pixels.long().unbind(-1)
    grey = (299 * red + 587 * green + 114 * blue) // 1000  # [n, p]
    counts = grey.new_zeros(len(grey), 256).scatter_add_(1, grey, torch.ones_like(grey))
    share = counts.double() / grey.shape[1] + 1e-10
    return -(share * share.log()).sum(1)


def share_of(median: Tensor, thresholds: Sequence[float], shares: Sequence[float], ratio: float) -> Tensor:
    """[] float64 share of the tokens that stays: that of the first threshold below `median` [], at least `ratio`.

    Args:
        thresholds: descending.
        shares: one for each threshold, and one for a median that is above none.

    Raises:
        PlanError: thresholds that do not descend, or another number of shares.
    """
    if list(thresholds) != sorted(thresholds, reverse=True) or len(shares) != len(thresholds) + 1:
        raise PlanError(f"thresholds must descend, and shares are one more: got {list(thresholds)} and {list(shares)}")
    passed = (median <= constant(tuple(thresholds), torch.float64, median.device)).sum().view(1)
    chosen = constant(tuple(shares), torch.float64, median.device).index_select(0, passed)
    return chosen.clamp_min(ratio).squeeze(0)


def erase(pixels: Tensor, thresholds: Sequence[float], shares: Sequence[float], ratio: float) -> Tensor:
    """[n] bool, true where a token of `pixels` [n, p, 3] is kept: those of the largest entropy.

    How many is the share that the lower median of the entropies asks for, rounded down. "ERASE", arXiv:2605.09982,
    stage 1. The published constants belong to one model and a final share `ratio`.
    """
    found = entropy(pixels)
    n = len(found)
    order = ranking(found)
    median = found.index_select(0, order[n // 2].view(1)).squeeze(0)  # from above, so that it is the lower one
    count = (n * share_of(median, thresholds, shares, ratio)).floor()
    return torch.empty_like(order, dtype=torch.bool).index_copy(0, order, torch.arange(n, device=order.device) < count)
