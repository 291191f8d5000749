"""The greedy choice with lazy volumes: a token meets the chosen ones only while it might be the next of them.

What a token adds only falls as more are chosen, so a volume that is out of date is a bound, and a token whose bound
does not lead need not be looked at. Rows are read in place, all arithmetic is float64. Hemmi et al., "Lazy and fast
greedy MAP inference for determinantal point process", NeurIPS 2022.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vlm_pruner.ops.dpp import LEAST
from vlm_pruner.ops.loops import compiled, doubles, numbers, value

__all__ = ["dpp"]


def dpp(rows: Sequence[Tensor], weight: Sequence[Tensor], keep: int) -> Tensor:
    """[B, keep] tokens; see `vlm_pruner.ops.dpp.dpp`. At most n keep numbers beyond the input."""
    return torch.stack([_one(r, w, keep) for r, w in zip(rows, weight, strict=True)])


def _one(rows: Tensor, weight: Tensor, keep: int) -> Tensor:
    memory, (stride,) = numbers(rows)
    return torch.from_numpy(_choose(memory, stride, rows.shape[1], doubles(weight), keep, LEAST))


@compiled
def _choose(rows, stride, d, scale, keep, least):
    n, count = len(scale), 0
    order = np.empty(keep, np.int64)
    factors = np.empty((n, keep))  # rows of the Cholesky factor; of chosen tokens with their diagonal
    known = np.zeros(n, np.int64)  # entries of a row that are there
    added, own, found = np.empty(n), np.empty(d), np.empty(4)
    for i in range(n):
        square = 0.0
        for x in rows[i * stride : i * stride + d]:
            square += np.float64(value(x)) * np.float64(value(x))
        added[i] = square * scale[i] * scale[i]
        if np.isnan(added[i]):
            added[i] = 0
    least *= added.max()
    bounds = [(-added[i], i) for i in range(n)]  # a heap; those that add most come first
    bounds += [(np.inf, n)] * 2  # so that there are always rivals
    heapq.heapify(bounds)
    while count < keep:
        token = bounds[0][1]
        if known[token] == count:
            factors[token, count] = np.sqrt(added[token]) if added[token] > least else 0.0
            order[count] = token
            count += 1
            heapq.heappop(bounds)
            continue
        rival = bounds[1] if bounds[1] < bounds[2] else bounds[2]
        row = rows[token * stride : token * stride + d]
        for c in range(d):
            own[c] = value(row[c])
        leads = True
        while leads and known[token] < count:
            begin = known[token]
            known[token] = min(begin + 4, count)
            _dots(rows, stride, own, order[begin : known[token]], found)
            added[token] = _without(found, scale, order, factors, token, begin, known[token], added[token])
            if not added[token] > least:
                added[token] = 0  # adds no volume: comes last, as does a NaN
            leads = (-added[token], token) < rival
        heapq.heapreplace(bounds, (-added[token], token))
    return order


@compiled
def _without(found, scale, order, factors, token, begin, end, left):
    """What a token adds beyond those chosen from `begin` to `end`, whose products with its row are `found`."""
    for i in range(begin, end):
        other = order[i]
        entry = found[i - begin] * scale[other] * scale[token]
        for j in range(i):
            entry -= factors[token, j] * factors[other, j]
        entry = entry / factors[other, i] if factors[other, i] > 0 else 0.0
        factors[token, i] = entry
        left -= entry * entry
    return left


@compiled
def _dots(rows, stride, own, tokens, out):
    """Into `out`: the products of `own` with the rows of one to four `tokens`, each the same in whatever company."""
    d, last = len(own), len(tokens) - 1
    at0, at1 = tokens[0] * stride, tokens[min(1, last)] * stride
    at2, at3 = tokens[min(2, last)] * stride, tokens[last] * stride
    row0, row1, row2, row3 = rows[at0 : at0 + d], rows[at1 : at1 + d], rows[at2 : at2 + d], rows[at3 : at3 + d]
    sum0, sum1, sum2, sum3 = 0.0, 0.0, 0.0, 0.0
    for c in range(d):
        sum0 += own[c] * np.float64(value(row0[c]))
        sum1 += own[c] * np.float64(value(row1[c]))
        sum2 += own[c] * np.float64(value(row2[c]))
        sum3 += own[c] * np.float64(value(row3[c]))
    out[0], out[1], out[2], out[3] = sum0, sum1, sum2, sum3
