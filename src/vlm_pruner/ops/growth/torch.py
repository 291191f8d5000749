"""The growth with running vectors: each cosine to a kept token is computed at most twice, and none is kept.

Where values may be read (CPU) images go through it one by one, block by block. Kept tokens wait until there are many of
them, or until all scores are needed, before the running vectors of all tokens take them in; the block at hand is
compared with those that wait. Blocks after one that nothing enters from are skipped up to the next with a member below
the threshold. Elsewhere images go together and nothing is read (`masked.py`).
"""

from __future__ import annotations

from bisect import bisect_right

import torch
from torch import Tensor

from vlm_pruner.ops.growth import Grown, masked
from vlm_pruner.ops.growth.rule import GrowthRule
from vlm_pruner.ops.sync import declared_sync, may_read

__all__ = ["grow"]

_WAITING = 64  # kept tokens that the running vectors may lack
_MISSES = 3  # blocks in a row that nothing enters from before the others are looked at all together


def grow(unit: Tensor, place: Tensor, diagonal: Tensor, pivots: Tensor, keep: int, rule: GrowthRule) -> Grown:
    """`vlm_pruner.ops.growth.grow`: [B, keep] order, [B, n] owner and similarity, without an [n, n] matrix.

    O(n q) time for every token kept, O(n) memory beyond the input for each of 64 of them.
    """
    if not may_read(unit):
        return masked.grow(unit, place, diagonal, pivots, keep, rule)
    with declared_sync():
        images = [_alone(*parts, keep, rule) for parts in zip(unit, place, diagonal.tolist(), pivots, strict=True)]
        return Grown(*(torch.stack(parts) for parts in zip(*images, strict=True)))


def _alone(
    unit: Tensor, place: Tensor, diagonal: float, pivots: Tensor, keep: int, rule: GrowthRule
) -> tuple[Tensor, Tensor, Tensor]:
    image = _Image(unit, place, rule.spatial_weight / diagonal, keep, max(_WAITING, rule.token_batch, len(pivots)))
    image.add(pivots)
    ladder, level, size = rule.thresholds(), -1, 0
    while image.size < keep and (rule.fill or image.size > size):
        size = image.size
        score = image.scores()
        level += 1
        if rule.fill:  # passes that would add nothing are skipped
            level = max(level, bisect_right(ladder, float(score.amin())))
        image.one_pass(score, ladder[min(level, len(ladder) - 1)], rule.token_batch)
    image.take_in()
    return image.order, image.owner, image.similarity


class _Image:
    """The running vectors of one image of n tokens on the CPU, and the kept tokens that they lack."""

    def __init__(self, unit: Tensor, place: Tensor, slope: float, keep: int, waiting: int) -> None:
        n = len(unit)
        self.unit, self.slope, self.keep = unit, slope, keep
        self.size = self.waiting = 0
        self.order = torch.full((keep,), -1)
        self.owner = torch.zeros(n, dtype=torch.int64)
        self.similarity = unit.new_full((n,), -torch.inf)  # largest cosine to a kept token
        self.near = unit.new_full((n,), torch.inf)  # distance to the nearest kept token
        nowhere = place.isnan()
        self.placeless = bool(nowhere.any())
        # Opposite infinities: a token without a place is infinitely far from all others, whichever side it is on.
        self.to = place.masked_fill(nowhere, torch.inf) if self.placeless else place  # [n, c]
        self.of = place.masked_fill(nowhere, -torch.inf) if self.placeless else place
        self.rows = unit.new_empty(waiting, unit.shape[1])  # of the kept tokens that wait
        self.spots = place.new_empty(waiting, place.shape[1])

    def add(self, members: Tensor) -> None:
        """Append `members` [m] in their order."""
        if self.waiting + len(members) > len(self.rows):
            self.take_in()
        size, waiting = self.size + len(members), self.waiting + len(members)
        self.order[self.size : size] = members
        torch.index_select(self.unit, 0, members, out=self.rows[self.waiting : waiting])
        torch.index_select(self.of, 0, members, out=self.spots[self.waiting : waiting])
        self.size, self.waiting = size, waiting

    def take_in(self) -> None:
        """Bring the running vectors up to date with the kept tokens that wait."""
        if not self.waiting:
            return
        best, which = (self.rows[: self.waiting] @ self.unit.T).max(0)  # [n]
        first = self.size - self.waiting
        self.owner = torch.where(best > self.similarity, which.add_(first), self.owner)
        torch.maximum(self.similarity, best, out=self.similarity)
        torch.minimum(self.near, _apart(self.spots[: self.waiting], self.to).amin(0), out=self.near)
        self.waiting = 0

    def scores(self) -> Tensor:
        """[n] redundancy of all tokens outside, infinity inside."""
        self.take_in()
        return self._score(self.similarity, self.near).index_fill_(0, self.order[: self.size], torch.inf)

    def redundancy(self, block: Tensor) -> Tensor:
        """[m] redundancy of the tokens `block`, whatever waits."""
        similarity, near = self.similarity.index_select(0, block), self.near.index_select(0, block)
        if self.waiting:
            cosine = self.unit.index_select(0, block) @ self.rows[: self.waiting].T  # [m, waiting]
            similarity = torch.maximum(similarity, cosine.amax(1))
            near = torch.minimum(near, _apart(self.to.index_select(0, block), self.spots[: self.waiting]).amin(1))
        return self._score(similarity, near)

    def one_pass(self, score: Tensor, threshold: float, width: int) -> None:
        """Go through the tokens outside in blocks of `width`, ordered by what their redundancy `score` [n] is now."""
        ranked = score.sort(stable=True).indices[: len(score) - self.size]
        begin = misses = 0
        while self.size < self.keep and begin < len(ranked):
            block = ranked[begin : begin + width]
            redundancy = self.redundancy(block)
            fits = (redundancy < threshold).nonzero().flatten()
            begin += width
            misses = 0 if len(fits) else misses + 1
            if len(fits):
                room = self.keep - self.size
                if len(fits) > room:
                    fits = redundancy.sort(stable=True).indices[:room].sort().values
                self.add(block.index_select(0, fits))
            elif misses == _MISSES or not self.waiting:
                below = (self.scores().index_select(0, ranked[begin:]) < threshold).nonzero()[:1].flatten().tolist()
                begin = begin + below[0] // width * width if below else len(ranked)

    def _score(self, similarity: Tensor, near: Tensor) -> Tensor:
        distance = near.masked_fill(near.isinf(), 0.0) if self.placeless else near
        return (distance * self.slope).add_(1).mul_(similarity)


def _apart(one: Tensor, other: Tensor) -> Tensor:
    """[a, b] distances of the places [a, c] and [b, c], from their differences."""
    return torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")
