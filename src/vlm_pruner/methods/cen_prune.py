"""Cen-Prune: diversity among centred directions, preference for tokens that stand out among the uncentred ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._signals import question
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.methods.cdpruner import dpp, relevance
from vlm_pruner.ops.basic import minmax, normalise
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["CenCDPruner", "CenDivPrune", "centred", "distinctiveness", "weighted_max_min"]


def centred(rows: Tensor) -> Tensor:
    """[n, d] unit directions of `rows` minus their mean, float32."""
    x = rows.float()
    x = x / x.abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
    return normalise(x - x.mean(0, keepdim=True))


def distinctiveness(rows: Tensor) -> Tensor:
    """[n] in [0, 1]: minus the mean cosine of each of `rows` [n, d] to all others, min-max scaled; O(n d)."""
    unit = normalise(rows)
    n = unit.shape[0]
    return minmax((1 - n * (unit @ unit.mean(0))) / max(1, n - 1))


def weighted_max_min(unit: Tensor, weight: Tensor, keep: int, block: int = 1024) -> Tensor:
    """[keep] tokens, each with the largest `weight` [n] times its distance 1 - cosine to the nearest one kept so far.

    The first is the token farthest from its own nearest neighbour, as in DivPrune; `unit` [n, d] are unit rows.
    """
    n = unit.shape[0]
    place = torch.arange(n, device=unit.device)
    near = [
        (rows @ unit.T).masked_fill(here[:, None] == place, -torch.inf).amax(1)
        for rows, here in zip(torch.split(unit, block), torch.split(place, block), strict=True)
    ]  # cosine of the nearest neighbour
    best = (-torch.cat(near)).argmax().view(1)
    order, distance = [best], unit.new_full((n,), torch.inf)
    taken = unit.new_zeros(n).index_fill(0, best, -torch.inf)
    for _ in range(keep - 1):
        distance = torch.minimum(distance, 1 - unit @ unit.index_select(0, best).squeeze(0))
        best = (weight * distance + taken).argmax().view(1)
        order.append(best)
        taken = taken.index_fill(0, best, -torch.inf)
    return torch.cat(order)


@final
@dataclass(frozen=True)
class CenDivPrune(PruningMethod):
    """DivPrune on centred directions, each distance weighted by how much the token stands out before centring.

    Source: "Centering before Pruning", 2026, on DivPrune (arXiv:2503.02175).
    Deviates: nothing known; the first token is chosen on centred directions.
    Cost: O(n^2 d) for the first token, then O(n d keep).
    """

    name: ClassVar[str] = "cen-divprune"
    title: ClassVar[str] = "Cen-Prune + DivPrune"
    source: ClassVar[str] = "Centering before Pruning, 2026"

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        order = weighted_max_min(centred(tokens.features), distinctiveness(tokens.features), keep)
        return Selection(index=order.sort().values, order=order)


@final
@dataclass(frozen=True)
class CenCDPruner(PruningMethod):
    """CDPruner with the kernel diag(r g) S diag(r g): S of centred directions, g how much a token stands out.

    Source: "Centering before Pruning", 2026, on CDPruner (arXiv:2506.10967).
    Deviates: as `cdpruner` does, word embeddings instead of CLIP's shared space included.
    Cost: O(n d keep).
    """

    name: ClassVar[str] = "cen-cdpruner"
    title: ClassVar[str] = "Cen-Prune + CDPruner"
    source: ClassVar[str] = "Centering before Pruning, 2026"
    wants: ClassVar[frozenset[Signal]] = frozenset({Signal.SHARED_SPACE, Signal.WORDS})
    question_aware: ClassVar[bool] = True

    negate: bool = True

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        image, text = question(self, tokens)
        weight = relevance(image, text, self.negate) * distinctiveness(tokens.features)
        order = dpp(centred(tokens.features), weight, keep)
        return Selection(index=order.sort().values, order=order)
