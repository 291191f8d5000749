"""The definition of facility location: every gain anew, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["facility"]


def facility(cover: Tensor, keep: int, row_weight: Tensor | None, candidate_weight: Tensor | None) -> Tensor:
    """[keep] candidates, as `vlm_pruner.ops.facility.facility`; every gain is recomputed from all that is chosen."""
    values = cover.double()
    rows = torch.ones_like(values[0]) if row_weight is None else row_weight.double()
    candidates = torch.ones_like(values[:, 0]) if candidate_weight is None else candidate_weight.double()
    order: list[int] = []
    for _ in range(keep):
        reached = values[order].amax(0).clamp_min(0) if order else torch.zeros_like(rows)  # [m]
        gain = candidates * ((values - reached).clamp_min(0) * rows).sum(1)
        gain[order] = -torch.inf
        order.append(int(gain.argmax()))
    return torch.tensor(order, device=cover.device)
