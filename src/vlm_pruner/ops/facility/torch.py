"""Facility location with a running maximum per row."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["facility"]


def facility(cover: Tensor, keep: int, row_weight: Tensor | None, candidate_weight: Tensor | None) -> Tensor:
    """[B, keep] candidates; see `vlm_pruner.ops.facility.facility`. O(n m) a step, and no value is read."""
    rows = [None] * len(cover) if row_weight is None else row_weight
    candidates = [None] * len(cover) if candidate_weight is None else candidate_weight
    return torch.stack([_one(*parts, keep) for parts in zip(cover, rows, candidates, strict=True)])


def _one(cover: Tensor, row_weight: Tensor | None, candidate_weight: Tensor | None, keep: int) -> Tensor:
    n, m = cover.shape
    weight = cover.new_ones(m) if row_weight is None else row_weight
    reached = cover.new_zeros(m)
    taken = cover.new_zeros(n)  # 0, or -inf where chosen
    order = []
    for _ in range(keep):
        gain = (cover - reached).relu_() @ weight  # [n]
        if candidate_weight is not None:
            gain = gain * candidate_weight
        best = (gain + taken).argmax().view(1)
        order.append(best)
        taken = taken.index_fill(0, best, -torch.inf)
        reached = torch.maximum(reached, cover.index_select(0, best).squeeze(0))
    return torch.cat(order)
