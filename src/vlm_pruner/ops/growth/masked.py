"""The growth of several images together, where nothing may be read off the device.

One step is one event: the next block, in the order of the pass, that has a member below the threshold, or the end of
the pass. Steps are masked per image; their number is bounded by the tokens still missing plus the number of passes.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from vlm_pruner.ops.growth import Grown
from vlm_pruner.ops.growth.rule import GrowthRule

__all__ = ["grow"]


def grow(unit: Tensor, place: Tensor, diagonal: Tensor, pivots: Tensor, keep: int, rule: GrowthRule) -> Grown:
    """`vlm_pruner.ops.growth.grow`: [B, keep] order, [B, n] owner and similarity.

    Always `keep` plus the length of the ladder steps of O(B n q token_batch), since an early end would be a read.
    """
    state = _State(unit, place, diagonal, keep, rule)
    everyone = torch.ones_like(pivots, dtype=torch.bool)
    state.add(pivots, everyone)
    state.next_pass(everyone[:, 0])
    for _ in range(keep - pivots.shape[1] + len(state.ladder) + 1):
        members, fits, ended = state.event()
        state.next_pass(ended)
        state.add(members, fits)
    return Grown(state.order[:, :keep], state.owner, state.similarity.float())


@functools.lru_cache(maxsize=64)
def ladder(rule: GrowthRule, device: torch.device) -> Tensor:
    """[P] float64 thresholds of the passes; cached, because filling a tensor from the host can wait for the device."""
    return torch.tensor(rule.thresholds(), dtype=torch.float64, device=device)


class _State:
    """The running vectors of B images of n tokens, in float64, where cosines of the rows of `screen` are exact."""

    def __init__(self, unit: Tensor, place: Tensor, diagonal: Tensor, keep: int, rule: GrowthRule) -> None:
        batch, n, _ = unit.shape
        device = unit.device
        self.unit, self.keep, self.rule = unit.double(), keep, rule
        self.ladder = ladder(rule, device)  # [P]
        axes = place.double().transpose(1, 2)  # [B, c, n]
        nowhere = axes.isnan()
        # Opposite infinities: a token without a place is infinitely far from all others, whichever side it is on.
        self.to, self.of = axes.masked_fill(nowhere, torch.inf), axes.masked_fill(nowhere, -torch.inf)
        self.slope = (rule.spatial_weight / diagonal.double())[:, None]  # [B, 1]
        self.similarity = self.unit.new_full((batch, n), -torch.inf)  # largest cosine to a kept token
        self.near = self.unit.new_full((batch, n), torch.inf)  # squared distance to the nearest kept token
        self.owner = torch.zeros(batch, n, dtype=torch.int64, device=device)
        self.inside = torch.zeros(batch, n + 1, dtype=torch.bool, device=device)  # column n takes masked writes
        self.order = torch.full((batch, keep + 1), -1, dtype=torch.int64, device=device)  # column keep likewise
        self.size = torch.zeros(batch, dtype=torch.int64, device=device)
        self.level = torch.full((batch,), -1, dtype=torch.int64, device=device)  # rung of the ladder
        self.grew = torch.ones(batch, dtype=torch.bool, device=device)  # has this pass added a token?
        self.done = torch.zeros_like(self.grew)
        self.block = torch.zeros(batch, n, dtype=torch.int64, device=device)  # block of a token in this pass
        self.ranked = torch.zeros(batch, n + rule.token_batch, dtype=torch.int64, device=device)
        self.cursor = torch.zeros_like(self.size)  # next block to look at
        self.lane = torch.arange(rule.token_batch, device=device)
        self.score = self.similarity

    def add(self, members: Tensor, fits: Tensor) -> None:
        """Append `members` [B, m] where they `fit`, in their order, and bring the running vectors up to date."""
        slot = torch.where(fits, self.size[:, None] + fits.cumsum(1) - 1, self.keep)  # [B, m]
        self.order.scatter_(1, slot, members)
        self.inside.scatter_(1, torch.where(fits, members, self.inside.shape[1] - 1), True)
        self.size += fits.sum(1)
        self.grew |= fits.any(1)
        self.done |= self.size >= self.keep
        rows = self.unit.gather(1, members[..., None].expand(-1, -1, self.unit.shape[2]))  # [B, m, q]
        cosine = torch.bmm(rows, self.unit.transpose(1, 2)).masked_fill_(~fits[..., None], -torch.inf)  # [B, m, n]
        best, which = cosine.max(1)
        self.owner = torch.where(best > self.similarity, slot.gather(1, which), self.owner)
        self.similarity = torch.maximum(self.similarity, best)
        of = self.of.gather(2, members[:, None].expand(-1, self.of.shape[1], -1))  # [B, c, m]
        of = of.masked_fill_(~fits[:, None], -torch.inf)
        apart = (self.to[:, :, None] - of[..., None]).square_().sum(1)  # [B, m, n]
        self.near = torch.minimum(self.near, apart.amin(1))
        distance = self.near.masked_fill(self.near.isinf(), 0.0).sqrt_()
        self.score = self.similarity * (1 + self.slope * distance)

    def event(self) -> tuple[Tensor, Tensor, Tensor]:
        """(members [B, token_batch], which of them enter, has the pass ended [B])."""
        below = (self.score < self.ladder[self.level][:, None]) & (self.block >= self.cursor[:, None])
        below &= ~self.inside[:, :-1]
        beyond = self.block.shape[1]
        first = self.block.masked_fill(~below, beyond).amin(1)  # [B]
        ended = (first == beyond) & ~self.done
        self.cursor = first + 1
        place = torch.where(ended | self.done, 0, first)[:, None] * self.rule.token_batch + self.lane
        members = self.ranked.gather(1, place)  # [B, token_batch] in the order of the pass
        fits = below.gather(1, members) & (place < beyond) & ~(ended | self.done)[:, None]
        redundancy = self.score.gather(1, members).masked_fill_(~fits, torch.inf)
        better = redundancy.argsort(stable=True).argsort(1)
        return members, fits & (better < (self.keep - self.size)[:, None]), ended

    def next_pass(self, ended: Tensor) -> None:
        """Begin a new pass, with the next threshold, in the images where one has `ended` [B]."""
        batch, n = self.block.shape
        free = self.score.masked_fill(self.inside[:, :-1], torch.inf)
        level = self.level + 1
        if self.rule.fill:  # passes that would add nothing are skipped
            level = torch.maximum(level, torch.searchsorted(self.ladder, free.amin(1), right=True))
        else:
            self.done |= ended & ~self.grew
        level.clamp_(max=len(self.ladder) - 1)
        ranked = free.argsort(stable=True)  # [B, n]
        rank = torch.arange(n, device=free.device).expand(batch, n)
        block = torch.empty_like(self.block).scatter_(1, ranked, rank // self.rule.token_batch)
        self.level = torch.where(ended, level, self.level)
        self.ranked[:, :n] = torch.where(ended[:, None], ranked, self.ranked[:, :n])
        self.block = torch.where(ended[:, None], block, self.block)
        self.cursor = self.cursor.masked_fill(ended, 0)
        self.grew = self.grew & ~ended
