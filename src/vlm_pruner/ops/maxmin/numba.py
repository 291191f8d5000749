"""Max-min diversity with lazy distances: a token is compared with chosen ones only while it might be the farthest.

Distances to the chosen tokens only fall as more are chosen, so one that is out of date is a bound, and a token whose
bound does not lead need not be looked at. Rows are read in place.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vlm_pruner.ops.loops import compiled, dots, floats, numbers, scaled
from vlm_pruner.ops.maxmin.torch import Cosines, first_bounded
from vlm_pruner.ops.sync import declared_sync

__all__ = ["spread"]


def spread(features: Sequence[Tensor], keep: int, start: int | None, weight: Sequence[Tensor] | None) -> Tensor:
    """[B, keep] tokens; see `vlm_pruner.ops.maxmin.spread`. 32 rows of cosines at a time for the first, then O(n)."""
    weights = [torch.empty(0, device="cpu")] * len(features) if weight is None else weight
    return torch.stack([_one(f, keep, start, w) for f, w in zip(features, weights, strict=True)])


def _one(features: Tensor, keep: int, start: int | None, weight: Tensor) -> Tensor:
    cosines = Cosines(features)
    rows, (stride,) = numbers(features)
    with declared_sync():
        first = first_bounded(cosines) if start is None else start
    order = _choose(rows, stride, features.shape[1], floats(cosines.inverse), floats(weight), first, keep)
    return torch.from_numpy(order)


@compiled
def _choose(rows, stride, d, inverse, weight, first, keep):
    """[keep] tokens from `first` on; `weight` may be empty."""
    n, count = len(inverse), 1
    order = np.full(keep, first, np.int64)
    covered, known = np.full(n, -np.inf, np.float32), np.zeros(n, np.int64)  # the largest cosine to so many chosen
    own, found = np.empty(d, np.float32), np.empty(4, np.float32)
    bounds = [(np.float32(-np.inf), i) for i in range(n) if i != first]  # a heap; the farthest come first
    bounds += [(np.float32(np.inf), n)] * 2  # so that there are always rivals
    while count < keep:
        token = bounds[0][1]
        if known[token] == count:
            order[count] = token
            count += 1
            heapq.heappop(bounds)
            continue
        rival = bounds[1] if bounds[1] < bounds[2] else bounds[2]
        scaled(rows, token * stride, inverse[token], own)
        leads = True
        while leads and known[token] < count:
            begin = known[token]
            known[token] = min(begin + 4, count)
            dots(rows, stride, own, order[begin : known[token]], found)
            for i in range(known[token] - begin):
                cosine = found[i] * inverse[order[begin + i]]
                covered[token] = max(covered[token], np.float32(0) if np.isnan(cosine) else cosine)
            bound = covered[token]
            if len(weight):
                bound = -weight[token] * (np.float32(1) - bound)
                bound = np.float32(0) if np.isnan(bound) else bound  # comes last
            leads = (bound, token) < rival
        heapq.heapreplace(bounds, (bound, token))
    return order
