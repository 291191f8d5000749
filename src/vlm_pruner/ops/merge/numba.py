"""Aggregation as one loop over the kept tokens, which reads the rows of those that each of them stands for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vlm_pruner.ops.loops import compiled, numbers, value
from vlm_pruner.ops.sync import declared_sync

__all__ = ["merge"]


def merge(
    features: Sequence[Tensor], index: Tensor, source: Tensor, weight: Tensor, self_weight: float
) -> list[Tensor]:
    """B tensors [k, d]; see `vlm_pruner.ops.merge.merge`. Every row is read once, in a fixed order of summation."""
    return [_one(*image, self_weight) for image in zip(features, index, source, weight, strict=True)]


def _one(features: Tensor, index: Tensor, source: Tensor, weight: Tensor, self_weight: float) -> Tensor:
    memory, (stride,) = numbers(features)
    with declared_sync():
        slots = [np.ascontiguousarray(part.numpy()) for part in (index, source, weight)]
    merged = _add_up(memory, features.shape[1], stride, *_bags(*slots, np.float32(self_weight)))
    return torch.from_numpy(merged).to(features.dtype)


@compiled
def _bags(index, source, weight, self_weight):
    """(tokens [n] by slot, where each slot begins among them [k + 1], what each of those tokens counts [n])."""
    n, slots = len(source), len(index)
    begin, total = np.zeros(slots + 1, np.int64), np.zeros(slots, np.float32)
    share = weight.copy()
    share[index] = 0
    for i in range(n):
        begin[source[i] + 1] += 1
        total[source[i]] += share[i]
    for slot in range(slots):
        begin[slot + 1] += begin[slot]
    for i in range(n):
        received = total[source[i]]
        share[i] = share[i] * (np.float32(1) - self_weight) / max(received, np.float32(1e-8)) if received > 0 else 0
    for slot in range(slots):
        share[index[slot]] = self_weight if total[slot] > 0 else 1
    member, counts, free = np.empty(n, np.int64), np.empty(n, np.float32), begin.copy()
    for i in range(n):
        at = free[source[i]]
        member[at], counts[at] = i, share[i]
        free[source[i]] += 1
    return member, begin, counts


@compiled
def _add_up(rows, d, stride, member, begin, counts):
    """[k, d] the weighted sum of the rows of each slot, four rows at a time."""
    out = np.zeros((len(begin) - 1, d), np.float32)
    for slot in range(len(out)):
        own, end = out[slot], begin[slot + 1]
        for j in range(begin[slot], end - 3, 4):
            at0, at1, at2, at3 = (
                member[j] * stride,
                member[j + 1] * stride,
                member[j + 2] * stride,
                member[j + 3] * stride,
            )
            row0, row1, row2, row3 = rows[at0 : at0 + d], rows[at1 : at1 + d], rows[at2 : at2 + d], rows[at3 : at3 + d]
            w0, w1, w2, w3 = counts[j], counts[j + 1], counts[j + 2], counts[j + 3]
            for c in range(d):
                own[c] += w0 * value(row0[c]) + w1 * value(row1[c]) + w2 * value(row2[c]) + w3 * value(row3[c])
        for j in range(end - (end - begin[slot]) % 4, end):
            row, w = rows[member[j] * stride : member[j] * stride + d], counts[j]
            for c in range(d):
                own[c] += w * value(row[c])
    return out
