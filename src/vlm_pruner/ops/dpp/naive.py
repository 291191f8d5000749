"""The definition of the greedy choice: every volume anew, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlm_pruner.ops.basic import first_largest
from vlm_pruner.ops.dpp import LEAST

__all__ = ["dpp"]


def dpp(rows: Sequence[Tensor], weight: Sequence[Tensor], keep: int) -> Tensor:
    """[B, keep] tokens; see `vlm_pruner.ops.dpp.dpp`. Holds the [n, n] kernel."""
    return torch.stack([_one(r, w, keep) for r, w in zip(rows, weight, strict=True)])


def _one(rows: Tensor, weight: Tensor, keep: int) -> Tensor:
    scaled = rows.float().double() * weight.double()[:, None]
    kernel = scaled @ scaled.T
    least = kernel.diagonal().max() * LEAST
    order: list[int] = []
    spanning: list[int] = []  # those that added volume
    for _ in range(keep):
        across = kernel[spanning]  # [s, n]
        inner = torch.linalg.solve(kernel[spanning][:, spanning], across) if spanning else across
        added = kernel.diagonal() - (across * inner).sum(0)  # the factor by which the determinant grows
        added[added <= least] = 0
        added[order] = -torch.inf
        order.append(int(first_largest(added)))
        if added[order[-1]] > least:
            spanning.append(order[-1])
    return torch.tensor(order, device=rows.device)
