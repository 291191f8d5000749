"""Facility location with a running maximum per row."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["facility"]


def facility(cover: Tensor, keep: int, row_weight: Tensor | None, candidate_weight: Tensor | None) -> Tensor:
    """[keep] candidates; see `vlm_pruner.ops.facility.facility`. O(n m) a step, and no value is read."""
    n, m = cover.shape
    weight = torch.ones(m, device=cover.device) if row_weight is None else row_weight
    reached = torch.zeros(m, device=cover.device)
    taken = torch.zeros(n, device=cover.device)  # 0, or -inf where chosen
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
