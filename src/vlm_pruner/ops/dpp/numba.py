"""The greedy choice with lazy volumes: a token meets the chosen ones only while it might be the next of them.

What a token adds only falls as more are chosen, so a volume that is out of date is a bound, and a token whose bound
does not lead need not be looked at. Rows are read in place. Hemmi et al., "Lazy and fast greedy MAP inference for
determinantal point process", NeurIPS 2022.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vlm_pruner.ops.dpp import LEAST
from vlm_pruner.ops.loops import compiled, dots, floats, numbers, scaled

__all__ = ["dpp"]


def dpp(rows: Sequence[Tensor], weight: Sequence[Tensor], keep: int) -> Tensor:
    """[B, keep] tokens; see `vlm_pruner.ops.dpp.dpp`. At most n keep floats beyond the input."""
    return torch.stack([_one(r, w, keep) for r, w in zip(rows, weight, strict=True)])


def _one(rows: Tensor, weight: Tensor, keep: int) -> Tensor:
    memory, (stride,) = numbers(rows)
    return torch.from_numpy(_choose(memory, stride, rows.shape[1], floats(weight), keep, np.float32(LEAST)))


@compiled
def _choose(rows, stride, d, scale, keep, least):
    n, count = len(scale), 0
    order = np.empty(keep, np.int64)
    factors = np.empty((n, keep), np.float32)  # rows of the Cholesky factor; of chosen tokens with their diagonal
    known = np.zeros(n, np.int64)  # entries of a row that are there
    added = np.zeros(n, np.float32)
    own, found = np.empty(d, np.float32), np.empty(4, np.float32)
    for i in range(n):
        scaled(rows, i * stride, scale[i], own)
        for c in range(d):
            added[i] += own[c] * own[c]
        if np.isnan(added[i]):
            added[i] = 0
    least *= added.max()
    bounds = [(-added[i], i) for i in range(n)]  # a heap; those that add most come first
    bounds += [(np.float32(np.inf), n)] * 2  # so that there are always rivals
    heapq.heapify(bounds)
    while count < keep:
        token = bounds[0][1]
        if known[token] == count:
            factors[token, count] = np.sqrt(added[token]) if added[token] > least else np.float32(0)
            order[count] = token
            count += 1
            heapq.heappop(bounds)
            continue
        rival = bounds[1] if bounds[1] < bounds[2] else bounds[2]
        scaled(rows, token * stride, scale[token], own)
        leads = True
        while leads and known[token] < count:
            begin = known[token]
            known[token] = min(begin + 4, count)
            dots(rows, stride, own, order[begin : known[token]], found)
            added[token] = _without(found, scale, order, factors, token, begin, known[token], added[token])
            leads = (-added[token], token) < rival
        heapq.heapreplace(bounds, (-added[token], token))
    return order


@compiled
def _without(found, scale, order, factors, token, begin, end, left):
    """What a token adds beyond those chosen from `begin` to `end`, whose products with its row are `found`."""
    for i in range(begin, end):
        other = order[i]
        entry = found[i - begin] * scale[other]
        for j in range(i):
            entry -= factors[token, j] * factors[other, j]
        entry = entry / factors[other, i] if factors[other, i] > 0 else np.float32(0)
        factors[token, i] = entry
        left -= entry * entry
    return np.float32(0) if np.isnan(left) else left  # comes last
