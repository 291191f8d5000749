"""Max-min pivots with one pass over the keys per pivot and no copy of them.

Where values may be read (CPU), distances to the first pivot are direct differences. With a and b as seen from it, the
others are |a|^2 + |b|^2 - 2ab, whose rounding grows with the norms. They only propose: tokens that rounding leaves
between them and the farthest are compared again by direct differences in float64, and those decide. Elsewhere all
distances are such differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from vlm_pruner.ops.sync import declared_sync, may_read

__all__ = ["farthest_points"]

_UNIT = 2.0**-24  # what rounding to float32 may change, relatively
_CHUNK = 1 << 19  # elements per temporary: what caches hold; fewer would be more calls
_CHUNK_ELSEWHERE = 1 << 23
_PLAIN = (1e-10, 1e15)  # L1 norms up to which no square vanishes or overflows in float32


def farthest_points(keys: Sequence[Tensor], count: int) -> Tensor:
    """[B, count] tokens; see `vlm_pruner.ops.pivots.farthest_points`. Reads the keys once per pivot."""
    heads, n, width = keys[0].shape
    if not may_read(keys[0]):
        return torch.stack([_unread(k, count) for k in keys])
    tokens = max(1, min(n, _CHUNK // width))
    heads = max(1, min(heads, _CHUNK // (tokens * width)))
    spare = keys[0].new_empty(heads, tokens, width, dtype=torch.float32)
    with declared_sync():
        return torch.stack([_Image(k, spare).farthest_points(count) for k in keys])


def _rows(keys: Tensor, index: Tensor) -> Tensor:
    """[m, heads * head_dim] float64 keys of some tokens."""
    return keys.index_select(1, index).float().double().transpose(0, 1).flatten(1)


def _apart_exactly(rows: Tensor, other: Tensor) -> Tensor:
    """[m] squared distances of rows to another row [1, heads * head_dim]; alike rows get the same number."""
    return (rows - other).square_().sum(1)


def _unread(keys: Tensor, count: int) -> Tensor:
    """[count] tokens, every distance by direct differences in float64."""
    heads, n, width = keys.shape
    strips = torch.split(torch.arange(n, device=keys.device), max(1, _CHUNK_ELSEWHERE // (heads * width)))

    def rows() -> Iterator[Tensor]:
        return (_rows(keys, strip) for strip in strips)

    chosen = [torch.cat([part.abs().sum(1) for part in rows()]).argmax()[None]]
    nearest = torch.full((n,), torch.inf, dtype=torch.float64, device=keys.device)
    while len(chosen) < count:
        pivot = _rows(keys, chosen[-1])
        apart = torch.cat([_apart_exactly(part, pivot) for part in rows()])
        nearest = nearest.minimum(apart).index_fill_(0, chosen[-1], -torch.inf)
        chosen.append(nearest.argmax()[None])
    return torch.cat(chosen)


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
        chosen = [self.longest(norm)]
        first = self.rows(chosen[0])  # [1, heads * head_dim]
        if not _PLAIN[0] < float(norm.amax()) < _PLAIN[1]:
            self.scale = first.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
            first = first / self.scale
        square = self.fold(_apart, first)  # [n]
        nearest = square.index_fill(0, chosen[0], -torch.inf)
        off = self.rounding(square, first)
        while len(chosen) < count:
            chosen.append(self.farthest(nearest, chosen, off))
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

    def rounding(self, square: Tensor, first: Tensor) -> float:
        """What a difference of two entries of `nearest` may be by rounding alone, with `square` seen from `first`."""
        reach, norm = math.sqrt(float(square.amax())), float(torch.linalg.vector_norm(first))
        return 8 * _UNIT * (first.shape[1] + 32) * reach * (reach + norm)

    def longest(self, norm: Tensor) -> Tensor:
        """[1] the token of the largest L1 norm, of which `norm` [n] is what float32 makes."""
        doubtful = _doubtful(norm, 4 * _UNIT * (self.keys.shape[0] * self.keys.shape[2] + 32) * float(norm.amax()))
        if len(doubtful) == 1:
            return doubtful
        exact = [_rows(self.keys, part).abs().sum(1) for part in self.strips_of(doubtful)]
        return doubtful[torch.cat(exact).argmax()[None]]

    def farthest(self, nearest: Tensor, chosen: list[Tensor], off: float) -> Tensor:
        """[1] the token farthest from `chosen`; of those within `off` of the largest `nearest`, differences decide."""
        doubtful = _doubtful(nearest, off)
        if len(doubtful) == 1:
            return doubtful
        exact = []
        for part in self.strips_of(doubtful):
            rows = _rows(self.keys, part)
            exact.append(torch.stack([_apart_exactly(rows, _rows(self.keys, one)) for one in chosen]).amin(0))
        return doubtful[torch.cat(exact).argmax()[None]]

    def strips_of(self, tokens: Tensor) -> tuple[Tensor, ...]:
        return torch.split(tokens, max(1, _CHUNK // (self.keys.shape[0] * self.keys.shape[2])))

    def fold(self, function: Callable[[Tensor, Tensor, Tensor, Tensor], object], row: Tensor) -> Tensor:
        """[n] sum over heads of what `function` makes of the scaled keys and of `row` [1, heads * head_dim].

        It gets a part in float32, its part of the row, a temporary of the part's shape, and where to write [heads, m].
        """
        sums, heads = [], len(self.spare)
        rows = torch.split(row.reshape(len(self.keys), 1, -1), heads)
        for strip in self.strips:
            made = self.spare.new_empty(len(self.keys), strip[0].shape[1])
            for part, own, out in zip(strip, rows, torch.split(made, heads), strict=True):
                spare = self.spare[: len(part), : part.shape[1]]
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


def _doubtful(value: Tensor, off: float) -> Tensor:
    """[m] the tokens within `off` of the largest `value`, ascending; all that are not out where there is no telling."""
    found = value >= value.amax() - off if math.isfinite(off) else value != -torch.inf
    found = found.nonzero().flatten()
    return found if len(found) else (value != -torch.inf).nonzero().flatten()
