"""ERASE, its first stage: the share of an image that stays, from the entropy of its own greys.

It acts on pixels before the vision tower and keeps its own number of tokens, for which `keep` is a ceiling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.budget import Budget
from vlm_pruner.errors import PlanError
from vlm_pruner.methods.base import PruningMethod, require
from vlm_pruner.ops.basic import ranking
from vlm_pruner.ops.sync import constant, declared_sync
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["Erase", "entropy", "erase", "share_of"]


@final
@dataclass(frozen=True)
class Erase(PruningMethod):
    """Keeps the tokens of largest grey-level entropy, before the vision tower; more of a picture that shows more.

    `keep` is a ceiling: of more than `keep` tokens those of the largest entropy stay.

    Args:
        thresholds: median entropies, in nats, descending.
        shares: of the tokens that stay where the median lies above each threshold, and where it lies above none.
        ratio: the least share.

    The defaults are the published constants, which belong to one model. The second stage is left to a later stage of a
    plan.
    Deviates from the released code: a ceiling; at least one token.
    Cost: O(n pixels).

    Raises:
        PlanError: as of `share_of`, or a ratio outside 0 to 1.
    """

    name: ClassVar[str] = "erase"
    title: ClassVar[str] = "ERASE"
    source: ClassVar[str] = "arXiv:2605.09982, stage 1"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.PIXELS})
    default_layer: ClassVar[int | str | None] = "tower"

    thresholds: tuple[float, ...] = (1.6904912034377264, 1.3471717001563197, 1.1718597959685415)
    shares: tuple[float, ...] = (0.8267523535511546, 0.751410400727526, 0.49466854974609853, 0.4033912240039451)
    ratio: float = 0.25

    def __post_init__(self) -> None:
        for name in ("thresholds", "shares"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON knows lists
        _check(self.thresholds, self.shares)
        if not 0 <= self.ratio <= 1:
            raise PlanError(f"ratio={self.ratio} must lie in [0, 1]")

    @property
    def budget(self) -> Budget:
        return "ceiling"

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        require(self, tokens, Signal.PIXELS)
        assert tokens.pixels is not None
        found = entropy((tokens.pixels.float() * 255).round().clamp(0, 255))
        count = _count(found, self.thresholds, self.shares, self.ratio)
        with declared_sync():  # how many stay is seen in the pixels alone
            own = int(count)
        order = ranking(found)[: min(keep, max(own, 1))]
        return Selection(order.sort().values, order)


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
    _check(thresholds, shares)
    passed = (median <= constant(tuple(thresholds), torch.float64, median.device)).sum().view(1)
    chosen = constant(tuple(shares), torch.float64, median.device).index_select(0, passed)
    return chosen.clamp_min(ratio).squeeze(0)


def _check(thresholds: Sequence[float], shares: Sequence[float]) -> None:
    if list(thresholds) != sorted(thresholds, reverse=True) or len(shares) != len(thresholds) + 1:
        raise PlanError(f"thresholds must descend, and shares are one more: got {list(thresholds)} and {list(shares)}")


def _count(found: Tensor, thresholds: Sequence[float], shares: Sequence[float], ratio: float) -> Tensor:
    """[] tokens that stay of those with the entropies `found` [n]: as their lower median asks, rounded down."""
    n = len(found)
    median = found.index_select(0, ranking(found)[n // 2].view(1)).squeeze(0)  # from above, so that it is the lower one
    return (n * share_of(median, thresholds, shares, ratio)).floor()


def erase(pixels: Tensor, thresholds: Sequence[float], shares: Sequence[float], ratio: float) -> Tensor:
    """[n] bool, true where a token of `pixels` [n, p, 3] is kept: those of the largest entropy.

    How many is the share that the lower median of the entropies asks for, rounded down. "ERASE", arXiv:2605.09982,
    stage 1. The published constants belong to one model and a final share `ratio`.
    """
    found = entropy(pixels)
    n = len(found)
    order, count = ranking(found), _count(found, thresholds, shares, ratio)
    return torch.empty_like(order, dtype=torch.bool).index_copy(0, order, torch.arange(n, device=order.device) < count)
