"""OTPrune: tokens whose similarities to all others span the largest volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._float64 import first_best
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["OTPrune", "otprune"]


def otprune(rows: Tensor, keep: int, strength: float = 0.01) -> Tensor:
    """[keep] tokens in order, each adding most to the determinant of I + `strength` G G^T over those chosen.

    G = Y Y^T, and Y is `rows` [n, d] with every channel at unit length over the tokens; a dead channel takes no part.
    Only the rows of the kernel that are needed are made of G, which is [n, n] in float64.
    """
    x = rows.double()
    x = x / x.abs().amax(0).clamp_min(torch.finfo(torch.float64).tiny)
    x = x / x.norm(dim=0).clamp_min(0.5)  # a channel whose largest entry is 1 is no shorter
    gram = x @ x.T
    gain = 1 + strength * gram.square().sum(1)
    order: list[Tensor] = []
    factor = gain.new_zeros(keep, len(gain))  # of Cholesky: one row for each chosen token
    for step in range(keep):
        best = first_best(gain)
        kernel = (strength * (gram.index_select(0, best) @ gram)).squeeze(0).index_add(0, best, gain.new_ones(1))
        done = factor[:step]
        row = (kernel - (done.index_select(1, best).T @ done).squeeze(0)) / gain.index_select(0, best).sqrt()
        factor[step] = row
        gain = (gain - row.square()).index_fill(0, best, -torch.inf)
        order.append(best)
    return torch.cat(order)


@final
@dataclass(frozen=True)
class OTPrune(PruningMethod):
    """Keeps the tokens that together differ most in how they resemble all others.

    Source: "OTPrune", arXiv:2602.20205, CVPR 2026; xiwenc1/OTPrune.
    Deviates: float64 instead of the dtype of the model, since the order of choice otherwise depends on the processor; a
    channel that is zero everywhere is left out, where the code has NaN; original positions are kept, and the tokens
    stay in order, where the code puts them into that of a Python set.
    Cost: O(n^2 (d + keep)), an [n, n] matrix in float64.
    """

    name: ClassVar[str] = "otprune"
    title: ClassVar[str] = "OTPrune"
    source: ClassVar[str] = "arXiv:2602.20205"

    strength: float = 0.01

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        order = otprune(tokens.features, keep, self.strength)
        return Selection(index=order.sort().values, order=order)
