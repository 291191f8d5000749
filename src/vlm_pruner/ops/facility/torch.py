"""Facility location with a running maximum per row."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["facility"]

_NUMBERS = 1 << 18  # in float64 at a time


def facility(cover: Tensor, keep: int, row_weight: Tensor, candidate_weight: Tensor) -> Tensor:
    """[B, keep] candidates; see `vlm_pruner.ops.facility.facility`. O(n m) a step, and no value is read.

    Every candidate's gain is added up by itself, not in a product with all: equal ones are equal to the last digit.
    """
    return torch.stack([_one(*parts, keep) for parts in zip(cover, row_weight, candidate_weight, strict=True)])


def _one(cover: Tensor, row_weight: Tensor, candidate_weight: Tensor, keep: int) -> Tensor:
    n, m = cover.shape
    rows, candidates = row_weight.double(), candidate_weight.double()
    reached = rows.new_zeros(m)
    taken = rows.new_zeros(n)  # 0, or -inf where chosen
    strips = torch.split(cover, max(1, _NUMBERS // m))
    order = []
    for _ in range(keep):
        gain = torch.cat([(part - reached).relu_().mul_(rows).sum(1) for part in strips]) * candidates  # [n]
        best = (gain + taken).argmax().view(1)
        order.append(best)
        taken = taken.index_fill(0, best, -torch.inf)
        reached = torch.maximum(reached, cover.index_select(0, best).squeeze(0).double())
    return torch.cat(order)
