"""The growth with running vectors: cosines to a kept token are computed once, when it enters.

One step is one *event*: the next block, in the order of the pass, that has a member below the threshold. Blocks without
one change nothing, so they are skipped together. Where values may be read (CPU) images go through it one by one, and
all but the matrix products is NumPy on the same memory, whose calls cost a third of torch's. Elsewhere images go
together and nothing is read (`masked.py`). All is in float64, where cosines of the rows of `screen` are exact.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlm_pruner.ops.growth import Grown, masked
from vlm_pruner.ops.growth.rule import GrowthRule
from vlm_pruner.ops.sync import declared_sync, may_read

__all__ = ["grow"]

Array = NDArray[Any]


def grow(unit: Tensor, place: Tensor, diagonal: Tensor, pivots: Tensor, keep: int, rule: GrowthRule) -> Grown:
    """`vlm_pruner.ops.growth.grow`: [B, keep] order, [B, n] owner and similarity, without an [n, n] matrix.

    O(n q) time for every token kept, O(n) memory beyond the input for each token of a block.
    """
    if not may_read(unit):
        return masked.grow(unit, place, diagonal, pivots, keep, rule)
    with declared_sync():
        images = [_alone(*parts, keep, rule) for parts in zip(unit, place, diagonal.tolist(), pivots, strict=True)]
        return Grown(*(torch.stack(parts) for parts in zip(*images, strict=True)))


def _alone(
    unit: Tensor, place: Tensor, diagonal: float, pivots: Tensor, keep: int, rule: GrowthRule
) -> tuple[Tensor, ...]:
    image = _Image(unit, place, rule.spatial_weight / diagonal, keep, max(rule.token_batch, len(pivots)))
    image.add(pivots.numpy())
    ladder, level, size = rule.thresholds(), -1, 0
    while image.size < keep and (rule.fill or image.size > size):
        size = image.size
        level += 1
        if rule.fill:  # passes that would add nothing are skipped
            level = max(level, bisect_right(ladder, float(image.score.min())))
        image.one_pass(ladder[min(level, len(ladder) - 1)], rule.token_batch)
    return tuple(torch.from_numpy(array) for array in (image.order, image.owner, np.float32(image.similarity)))


class _Image:
    """The running vectors of one image of n tokens on the CPU."""

    def __init__(self, unit: Tensor, place: Tensor, slope: float, keep: int, block: int) -> None:
        n = len(unit)
        self.unit, self.slope, self.keep, self.size = unit.double(), slope, keep, 0
        self.order = np.full(keep, -1)
        self.owner = np.zeros(n, np.int64)
        self.similarity = np.full(n, -np.inf)  # largest cosine to a kept token
        self.near = np.full(n, np.inf)  # squared distance to the nearest kept token
        axes = np.ascontiguousarray(place.numpy().T)  # [c, n]
        # Squares of small whole numbers have a place in float32.
        if not (np.rint(axes) == axes).all() or np.abs(axes).max() > 1024:
            axes = axes.astype(np.float64)
        self.apart = np.empty((place.shape[1], block, n), axes.dtype)  # fresh memory costs more than the arithmetic
        nowhere = np.isnan(axes)
        self.placeless = bool(nowhere.any())
        # Opposite infinities: a token without a place is infinitely far from all others, whichever side it is on.
        self.to, self.of = (np.where(nowhere, far, axes) if self.placeless else axes for far in (np.inf, -np.inf))

    def add(self, members: Array) -> None:
        """Append `members` [m] in their order, and bring the running vectors up to date."""
        size = self.size + len(members)
        self.order[self.size : size] = members
        cosine = (self.unit.index_select(0, torch.from_numpy(members)) @ self.unit.T).numpy()  # [m, n]
        most = cosine.max(0)
        nearer = (most > self.similarity).nonzero()[0]
        self.owner[nearer] = self.size + cosine[:, nearer].argmax(0)  # ties go to the earlier member
        self.similarity[nearer] = most[nearer]
        apart = np.subtract(self.to[:, None], self.of[:, members, None], out=self.apart[:, : len(members)])  # [c, m, n]
        apart *= apart
        for axis in apart[1:]:
            apart[0] += axis
        np.minimum(self.near, apart[0].min(0), out=self.near)
        near = np.where(np.isinf(self.near), 0.0, self.near) if self.placeless else self.near
        self.score = np.sqrt(near)
        self.score *= self.slope
        self.score += 1
        self.score *= self.similarity
        self.size = size
        self.score[self.order[:size]] = np.inf

    def one_pass(self, threshold: float, width: int) -> None:
        """Go through the tokens outside in blocks of `width`, ordered by what their redundancy is now."""
        ranked, begin = self.score.argsort(kind="stable"), 0
        while self.size < self.keep:
            below = (self.score[ranked[begin:]] < threshold).nonzero()[0]
            if not len(below):
                break
            start = begin + int(below[0]) // width * width
            members = ranked[begin + below[: np.searchsorted(below, start + width - begin)]]
            begin, room = start + width, self.keep - self.size
            if len(members) > room:
                least = self.score[members].argsort(kind="stable")[:room]
                members = members[np.sort(least)]
            self.add(members)
