"""Max-min diversity with lazy distances: a token is compared with chosen ones only while it might be the farthest.

Distances to the chosen tokens only fall as more are chosen, so one that is out of date is a bound, and a token whose
bound does not lead need not be looked at. Rows are read in place, and their cosines are float32, whose rounding is
known: of each token there is the least and the most that its largest cosine may be. Only where those of the two leading
tokens overlap are they computed again, exactly.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from math import isqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlm_pruner.ops.loops import compiled, dots, doubles, exact_dot, numbers, on_grid, slack, value
from vlm_pruner.ops.maxmin.torch import Cosines, first_bounded
from vlm_pruner.ops.sync import declared_sync

__all__ = ["spread"]


def spread(features: Sequence[Tensor], keep: int, start: int | None, weight: Sequence[Tensor] | None) -> Tensor:
    """[B, keep] tokens; see `vlm_pruner.ops.maxmin.spread`. 32 rows of cosines at a time for the first, then O(n)."""
    weights = [torch.empty(0, device="cpu")] * len(features) if weight is None else weight
    return torch.stack([_one(f, keep, start, w) for f, w in zip(features, weights, strict=True)])


def _one(features: Tensor, keep: int, start: int | None, weight: Tensor) -> Tensor:
    rows, (stride,) = numbers(features)
    inverse = _inverses(rows, stride, *features.shape)
    with declared_sync():
        first = first_bounded(_Cosines(features, inverse), {}) if start is None else start
    given = (rows, stride, features.shape[1], inverse)
    off = slack(256 + isqrt(features.shape[1]) + 32)  # `dots` adds up 256 channels at a time
    return torch.from_numpy(_choose(given, doubles(weight), first, keep, off))


class _Cosines(Cosines):
    """Cosines whose exact ones are a loop over two rows."""

    def __init__(self, features: Tensor, inverse: NDArray[Any]) -> None:
        super().__init__(features, torch.from_numpy(inverse))
        self.lengths = inverse

    def pairs(self, one: Tensor, other: Tensor) -> Tensor:
        rows, (stride,) = numbers(self.features)
        given = (rows, stride, self.features.shape[1], self.lengths)
        found = [_exact(given, a, b) for a, b in zip(one.tolist(), other.tolist(), strict=True)]
        return torch.tensor(found, dtype=torch.float64, device="cpu")


@compiled
def _inverses(rows, stride, n, d):
    """[n] 1 / length of each row, 0 for a row of zeros."""
    inverse = np.zeros(n)
    for i in range(n):
        row, square = rows[i * stride : i * stride + d], 0.0
        for c in range(d):
            x = np.float64(value(row[c]))
            square += x * x
        inverse[i] = 1 / np.sqrt(square) if square > 0 else 0.0
    return inverse


@compiled
def _exact(given, one, other):
    """The cosine of two tokens, without rounding."""
    rows, stride, d, inverse = given
    left, right = np.empty(d, np.float32), np.empty(d, np.float32)
    on_grid(rows[one * stride : one * stride + d], inverse[one], left)
    on_grid(rows[other * stride : other * stride + d], inverse[other], right)
    cosine = exact_dot(left, right)
    return 0.0 if np.isnan(cosine) else cosine


@compiled
def _choose(given, weight, first, keep, off):
    """[keep] tokens from `first` on; `weight` may be empty."""
    n, count = len(given[3]), 1
    order = np.full(keep, first, np.int64)
    low, high = np.full(n, -np.inf), np.full(n, -np.inf)  # what the largest cosine to `known` chosen ones lies between
    known, exact = np.zeros(n, np.int64), np.zeros(n, np.int64)
    sure = np.full(n, -np.inf)  # the largest cosine to `exact` of them, without rounding
    own, found = np.empty(given[2], np.float32), np.empty(4)
    bounds = [(-np.inf, i) for i in range(n) if i != first]  # a heap; the farthest come first
    bounds += [(np.inf, n)] * 2  # so that there are always rivals
    state = (order, low, high, known, exact, sure, own, found)
    while count < keep:
        token = bounds[0][1]
        rival = bounds[1] if bounds[1] < bounds[2] else bounds[2]
        if known[token] < count:
            _compare(given, weight, token, count, rival, off, state)
        elif exact[token] == count or _bound(weight, token, high[token]) < rival[0]:
            order[count] = token
            count += 1
            heapq.heappop(bounds)
            continue
        else:
            _settle(given, token, count, off, state)
        heapq.heapreplace(bounds, (_bound(weight, token, low[token]), token))
    return order


@compiled
def _bound(weight, token, cosine):
    """What orders tokens as minus their weighted distance does; a NaN comes last."""
    bound = -weight[token] * (1.0 - cosine) if len(weight) else cosine
    return 0.0 if np.isnan(bound) else bound


@compiled
def _compare(given, weight, token, count, rival, off, state):
    """Compares a token with the chosen ones that it has not met, four at a time, while it leads."""
    rows, stride, d, inverse = given
    order, low, high, known, exact, sure, own, found = state
    row = rows[token * stride : token * stride + d]
    for c in range(d):
        own[c] = value(row[c]) * inverse[token]
    leads = True
    while leads and known[token] < count:
        begin = known[token]
        known[token] = min(begin + 4, count)
        dots(rows, stride, own, order[begin : known[token]], found)
        for i in range(known[token] - begin):
            cosine = found[i] * inverse[order[begin + i]]
            cosine = 0.0 if np.isnan(cosine) else cosine
            if exact[token] == begin + i and cosine + off <= sure[token]:
                exact[token] += 1
            low[token] = max(low[token], cosine - off)
            high[token] = max(high[token], cosine + off)
        leads = (_bound(weight, token, low[token]), token) < rival


@compiled
def _settle(given, token, count, off, state):
    """Computes the largest cosine of a token to all chosen ones exactly; most of them cannot be it."""
    rows, stride, d, inverse = given
    order, low, high, _, exact, sure, own, found = state
    row = rows[token * stride : token * stride + d]
    for c in range(d):
        own[c] = value(row[c]) * inverse[token]
    for begin in range(exact[token], count, 4):
        end = min(begin + 4, count)
        dots(rows, stride, own, order[begin:end], found)
        for j in range(begin, end):
            cosine = found[j - begin] * inverse[order[j]]
            if not cosine + off < max(sure[token], low[token]):
                sure[token] = max(sure[token], _exact(given, token, order[j]))
    low[token] = high[token] = sure[token]
    exact[token] = count
