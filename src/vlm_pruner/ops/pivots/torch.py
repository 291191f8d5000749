"""Max-min pivots with one pass over the keys per pivot and no copy of them.

Distances to the first pivot are direct differences. With a and b as seen from it, the others are |a|^2 + |b|^2 - 2ab,
whose rounding grows with the norms. It only proposes: unless the lead of the farthest token is known to exceed that,
the few farthest are compared again by direct differences, and those decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vlm_pruner.ops.sync import declared_sync, may_read

__all__ = ["farthest_points"]

_PROPOSED = 8  # tokens compared again by direct differences
_ROUNDING = 1e-5  # more than that of a product, relative to the norms of its factors
_CHUNK = {"cpu": 1 << 19}  # elements per temporary: on a CPU, what caches hold; fewer would be more calls
_CHUNK_ELSEWHERE = 1 << 24
_PLAIN = (1e-10, 1e15)  # L1 norms up to which no square vanishes or overflows in float32


def farthest_points(keys: Sequence[Tensor], count: int) -> Tensor:
    """[B, count] tokens; see `vlm_pruner.ops.pivots.farthest_points`. Reads the keys once per pivot."""
    heads, n, width = keys[0].shape
    limit = _CHUNK.get(keys[0].device.type, _CHUNK_ELSEWHERE)
    tokens = max(1, min(n, limit // width))
    heads = max(1, min(heads, limit // (tokens * width)))
    spare = keys[0].new_empty(heads, tokens, width, dtype=torch.float32)
    return torch.stack([_Image(k, spare).farthest_points(count) for k in keys])


class _Image:
    """The keys [heads, n, head_dim] of one image, and the parts in which they are read.

    Parts are heads, and tokens as well where heads are too large. All have one temporary: fresh memory costs more than
    the arithmetic.
    """

    def __init__(self, keys: Tensor, spare: Tensor) -> None:
        self.keys, self.spare = keys, spare
        self.strips = [torch.split(strip, len(spare)) for strip in torch.split(keys, spare.shape[1], dim=1)]
        self.scale: Tensor | None = None  # what keys are divided by

    def farthest_points(self, count: int) -> Tensor:
        """[count] tokens, one pass over the keys for each and one for the first."""
        norm = self.fold(_absolute, self.keys[:, :1])  # [n]
        chosen = [norm.argmax()[None]]
        first = self.rows(chosen[0])  # [1, heads * head_dim]
        if not _needs_no_scaling(norm.amax()):
            self.scale = first.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
            first = first / self.scale
        square = self.fold(_apart, first)  # [n]
        nearest = square.index_fill(0, chosen[0], -torch.inf)
        rounding = _rounding(square, first) if count > 1 else None
        while len(chosen) < count:
            leader = _leader(nearest, rounding)
            chosen.append(self.farthest(nearest, chosen) if leader is None else leader)
            if len(chosen) < count:
                pivot = self.rows(chosen[-1]) - first
                dot = self.fold(_product, pivot) - first @ pivot[0]
                apart = torch.sub(square + square.index_select(0, chosen[-1]), dot, alpha=2).clamp_(min=0)
                nearest = nearest.minimum(apart.nan_to_num_(nan=0.0)).index_fill_(0, chosen[-1], -torch.inf)
        return torch.cat(chosen)

    def rows(self, index: Tensor) -> Tensor:
        """[m, heads * head_dim] scaled float32 keys of some tokens."""
        rows = self.keys.index_select(1, index).float().transpose(0, 1).flatten(1)
        return rows if self.scale is None else rows / self.scale

    def farthest(self, nearest: Tensor, chosen: list[Tensor]) -> Tensor:
        """[1] of the tokens with the largest `nearest`, the one that direct differences put farthest from `chosen`."""
        far = nearest.topk(min(_PROPOSED, len(nearest))).indices
        proposed = torch.cat([nearest.argmax()[None], far]).sort().values  # ascending: ties go to the lower index
        rows = self.rows(torch.cat([proposed, *chosen]))
        apart = (rows[: len(proposed), None] - rows[len(proposed) :]).square_().sum(-1).amin(1)
        best = apart.masked_fill_(nearest.index_select(0, proposed) < 0, -1.0).argmax()[None]
        return proposed.index_select(0, best)

    def fold(self, function: Callable[[Tensor, Tensor, Tensor, Tensor], object], row: Tensor) -> Tensor:
        """[n] sum over heads of what `function` makes of the scaled keys and of `row` [1, heads * head_dim].

        It gets a part in float32, its part of the row, a temporary of the part's shape, and where to write [heads, m].
        """
        sums, heads = [], len(self.spare)
        rows = torch.split(row.reshape(len(self.keys), 1, -1), heads)
        for strip in self.strips:
            made = self.spare.new_empty(len(self.keys), strip[0].shape[1])
            for part, own, out in zip(strip, rows, torch.split(made, heads), strict=True):
                spare = self.spare if part.shape == self.spare.shape else self.spare[: len(part), : part.shape[1]]
                if part.dtype != torch.float32:
                    part = spare.copy_(part)
                if self.scale is not None:
                    part = torch.div(part, self.scale, out=spare)
                function(part, own, spare, out)
            sums.append(made.sum(0))
        return torch.cat(sums)


def _absolute(part: Tensor, _: Tensor, spare: Tensor, out: Tensor) -> Tensor:
    """[heads, m] L1 norms of keys [heads, m, head_dim]."""
    return torch.sum(torch.abs(part, out=spare), -1, out=out)


def _apart(part: Tensor, row: Tensor, spare: Tensor, out: Tensor) -> Tensor:
    """[heads, m] squared distances of keys [heads, m, head_dim] to one of them [heads, 1, head_dim]."""
    apart: Tensor = torch.linalg.vector_norm(torch.sub(part, row, out=spare), dim=-1, out=out)
    return apart.square_()


def _product(part: Tensor, row: Tensor, _: Tensor, out: Tensor) -> Tensor:
    """[heads, m] products of keys [heads, m, head_dim] with one of them [heads, 1, head_dim]."""
    return torch.bmm(part, row.transpose(1, 2), out=out[:, :, None])  # the other way round: half the speed of memory


def _rounding(square: Tensor, first: Tensor) -> float | None:
    """What a difference of two entries of `nearest` may be by rounding alone; None where it cannot be read."""
    if len(square) < 2 or not may_read(square):
        return None
    with declared_sync():
        reach, norm = math.sqrt(float(square.amax())), float(torch.linalg.vector_norm(first))
        return _ROUNDING * reach * (reach + norm)


def _leader(nearest: Tensor, rounding: float | None) -> Tensor | None:
    """[1] the token with the largest `nearest` where its lead is known to be more than rounding, else None."""
    if rounding is None:
        return None
    top = nearest.topk(2)
    with declared_sync():
        best, second = top.values.tolist()
        return top.indices[:1] if best - second > rounding else None


def _needs_no_scaling(largest: Tensor) -> bool:
    """May squares of keys whose L1 norm is at most `largest` be taken as they are? Unknown where it cannot be read."""
    if not may_read(largest):
        return False
    with declared_sync():
        return _PLAIN[0] < float(largest) < _PLAIN[1]
