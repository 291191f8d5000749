"""The greedy choice by a Cholesky factor that grows by a row with every token, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlm_pruner.ops.basic import first_largest
from vlm_pruner.ops.dpp import LEAST

__all__ = ["dpp"]


def dpp(rows: Sequence[Tensor], weight: Sequence[Tensor], keep: int) -> Tensor:
    """[B, keep] tokens; see `vlm_pruner.ops.dpp.dpp`. Kernel rows are computed when chosen: O(n (d + keep)) memory."""
    return torch.stack([_one(r, w, keep) for r, w in zip(rows, weight, strict=True)])


def _one(rows: Tensor, weight: Tensor, keep: int) -> Tensor:
    scaled = rows.float().double() * weight.double()[:, None]  # [n, d]
    residual = scaled.square().sum(1)
    least = residual.max() * LEAST
    factors = scaled.new_zeros(keep, len(scaled))  # rows of the Cholesky factor
    taken = torch.zeros_like(residual)
    order = []
    for t in range(keep):
        added = torch.where(residual > least, residual, 0.0)
        best = first_largest(added + taken)
        order.append(best)
        taken = taken.index_fill(0, best, -torch.inf)
        row = scaled @ scaled.index_select(0, best).squeeze(0)  # [n]
        known = factors[:t]
        row = row - known.index_select(1, best).squeeze(1) @ known
        height = added.index_select(0, best)
        factor = torch.where(height > 0, row / height.clamp_min(torch.finfo(torch.float64).tiny).sqrt(), 0.0)
        factors[t] = factor
        residual = residual - factor.square()
    return torch.cat(order)
