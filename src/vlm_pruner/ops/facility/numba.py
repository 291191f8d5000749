"""Facility location with lazy gains: what a candidate would add is computed anew only while it might be the most.

Gains only fall as more is reached, so one that is out of date is a bound. Minoux, "Accelerated greedy algorithms for
maximizing submodular set functions", 1978.
"""

from __future__ import annotations

import heapq

import numpy as np
import torch
from torch import Tensor

from vlm_pruner.ops.loops import compiled, doubles, numbers

__all__ = ["facility"]


def facility(cover: Tensor, keep: int, row_weight: Tensor, candidate_weight: Tensor) -> Tensor:
    """[B, keep] candidates; see `vlm_pruner.ops.facility.facility`. O(n + m) memory beyond the input."""
    return torch.stack([_one(*parts, keep) for parts in zip(cover, row_weight, candidate_weight, strict=True)])


def _one(cover: Tensor, row_weight: Tensor, candidate_weight: Tensor, keep: int) -> Tensor:
    values, (stride,) = numbers(cover)
    return torch.from_numpy(_choose(values, stride, doubles(row_weight), doubles(candidate_weight), keep))


@compiled
def _choose(values, stride, rows, candidates, keep):
    n, m, count = len(candidates), len(rows), 0
    order, reached = np.empty(keep, np.int64), np.zeros(m)
    known = np.full(n, -1, np.int64)  # how many had been chosen when the gain was computed
    bounds = [(-np.inf, i) for i in range(n)]  # a heap; those that add most come first
    while count < keep:
        token = bounds[0][1]
        own = values[token * stride : token * stride + m]
        if known[token] == count:
            for r in range(m):
                reached[r] = max(reached[r], np.float64(own[r]))
            order[count] = token
            count += 1
            heapq.heappop(bounds)
            continue
        gain = 0.0
        for r in range(m):
            above = own[r] - reached[r]
            gain += (above if above > 0 else 0.0) * rows[r]
        known[token] = count
        gain *= candidates[token]
        heapq.heapreplace(bounds, (0.0 if np.isnan(gain) else -gain, token))  # a NaN comes last
    return order
