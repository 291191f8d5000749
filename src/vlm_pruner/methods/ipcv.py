"""IPCV: inside the vision tower only patches that change are computed, and the others are rebuilt from them.

It acts between two blocks of the tower and gives every patch back. The functions are here; there is no place in a plan
yet where a method could ask for them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlm_pruner.ops.basic import others, top

__all__ = ["ipcv", "rebuilt"]


def ipcv(before: Tensor, after: Tensor, keep: int) -> Tensor:
    """[keep] patches, ascending, that a block changed most (Euclidean): `before` and `after` [n, c] are its rows.

    arXiv:2512.18747; Perkzi/IPCV.
    """
    return top((after.double() - before.double()).norm(dim=1), keep).sort().values


def rebuilt(entered: Tensor, kept: Tensor, last: Tensor, neighbours: int = 10) -> Tensor:
    """[n, c] rows of all patches behind the tower: the kept ones as they are, the others moved as their neighbours.

    A patch that was not computed is its row from where it was left, plus the mean of what the kept patches nearest to
    it there, by Euclidean distance, have changed since.

    Args:
        entered: [n, c] rows from which on only `kept` [k] were computed.
        last: [k, c] rows of the kept patches by now.
        neighbours: how many; all of them where fewer are kept.
    """
    n = len(entered)
    rest = others(kept, n)
    x = entered.double()
    basis, away = x.index_select(0, kept), x.index_select(0, rest)
    distance = torch.cdist(away, basis, compute_mode="donot_use_mm_for_euclid_dist")
    near = distance.argsort(dim=1, stable=True)[:, :neighbours]  # [n - k, neighbours]
    moved = (last.double() - basis).index_select(0, near.flatten()).view(*near.shape, -1).mean(1)
    rows = entered.index_copy(0, rest, (away + moved).to(entered.dtype))
    return rows.index_copy(0, kept, last.to(entered.dtype))
