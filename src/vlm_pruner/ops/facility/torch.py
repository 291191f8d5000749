"""Facility location with a running maximum per row."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["facility"]


def facility(cover: Tensor, keep: int, row_weight: Tensor, candidate_weight: Tensor) -> Tensor:
    """[B, keep] candidates; see `vlm_pruner.ops.facility.facility`. O(n m) a step, and no value is read."""
    return torch.stack([_one(*parts, keep) for parts in zip(cover, row_weight, candidate_weight, strict=True)])


def _one(cover: Tensor, row_weight: Tensor, candidate_weight: Tensor, keep: int) -> Tensor:
    n, m = cover.shape
    reached = cover.new_zeros(m)
    taken = cover.new_zeros(n)  # 0, or -inf where chosen
    order = []
    for _ in range(keep):
        gain = (cover - reached).relu_() @ row_weight * candidate_weight  # [n]
        best = (gain + taken).argmax().view(1)
        order.append(best)
        taken = taken.index_fill(0, best, -torch.inf)
        reached = torch.maximum(reached, cover.index_select(0, best).squeeze(0))
    return torch.cat(order)
