"""Farthest-point sampling from a random start: DivPrune without its choice of the first token."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import normalise
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["FarthestPoints", "farthest"]


def farthest(unit: Tensor, start: int, keep: int) -> Tensor:
    """[keep] tokens: `start`, then always the one whose nearest kept token is farthest, by cosine of `unit` [n, d]."""
    best = torch.full((1,), start, device=unit.device)
    order, near = [best], unit.new_full((len(unit),), -torch.inf)
    for _ in range(keep - 1):
        near = torch.maximum(near, unit @ unit.index_select(0, best).squeeze(0)).index_fill(0, best, torch.inf)
        best = near.argmin().view(1)
        order.append(best)
    return torch.cat(order)


@final
@dataclass(frozen=True)
class FarthestPoints(PruningMethod):
    """Keeps tokens that lie far apart by cosine, from a first one that depends on the seed and n alone.

    Source: baseline (Gonzalez, 1985).
    Deviates: nothing.
    Cost: O(n d keep).
    """

    name: ClassVar[str] = "fps"
    title: ClassVar[str] = "Farthest points, random start"
    source: ClassVar[str] = "baseline"

    seed: int = 0

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        start = random.Random(self.seed).randrange(len(tokens))
        order = farthest(normalise(tokens.features), start, keep)
        return Selection(index=order.sort().values, order=order)
