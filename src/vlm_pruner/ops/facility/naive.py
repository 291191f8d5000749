"""The definition of facility location: every gain anew, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["facility"]


def facility(cover: Tensor, keep: int, row_weight: Tensor, candidate_weight: Tensor) -> Tensor:
    """[B, keep] candidates, as `vlm_pruner.ops.facility.facility`; every gain is recomputed from all that is chosen."""
    return torch.stack([_one(cover[b], row_weight[b], candidate_weight[b], keep) for b in range(len(cover))])


def _one(cover: Tensor, row_weight: Tensor, candidate_weight: Tensor, keep: int) -> Tensor:
    values, rows, candidates = cover.double(), row_weight.double(), candidate_weight.double()
    order: list[int] = []
    for _ in range(keep):
        reached = values[order].amax(0).clamp_min(0) if order else torch.zeros_like(rows)  # [m]
        gain = candidates * ((values - reached).clamp_min(0) * rows).sum(1)
        gain[order] = -torch.inf
        order.append(int(gain.argmax()))
    return torch.tensor(order, device=cover.device)
