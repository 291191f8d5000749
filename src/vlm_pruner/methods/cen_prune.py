"""Cen-Prune: diversity among centred directions, preference for tokens that stand out among the uncentred ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._order import TokenByToken
from vlm_pruner.methods._signals import question
from vlm_pruner.methods.cdpruner import relevance
from vlm_pruner.ops import dpp, spread
from vlm_pruner.ops.basic import minmax, normalise, products
from vlm_pruner.types import Signal, VisualTokens

__all__ = ["CenCDPruner", "CenDivPrune", "centred", "distinctiveness"]


def centred(rows: Tensor) -> Tensor:
    """[n, d] unit directions of `rows` minus their mean, float32."""
    x = rows.float().double()
    x = x / x.abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
    return normalise(x - x.mean(0, keepdim=True))


def distinctiveness(rows: Tensor) -> Tensor:
    """[n] in [0, 1]: minus the mean cosine of each of `rows` [n, d] to all others, min-max scaled; O(n d)."""
    unit = normalise(rows)
    return minmax((1 - products(unit, unit.double().sum(0))) / max(1, unit.shape[0] - 1)).float()


@final
@dataclass(frozen=True)
class CenDivPrune(TokenByToken):
    """DivPrune on centred directions, each distance weighted by how much the token stands out before centring.

    Source: "Centering before Pruning", 2026, on DivPrune (arXiv:2503.02175).
    Deviates: nothing known; the first token is chosen on centred directions.
    Cost: O(n^2 d) at most for the first token, then O(n d keep) at most.
    """

    name: ClassVar[str] = "cen-divprune"
    title: ClassVar[str] = "Cen-Prune + DivPrune"
    source: ClassVar[str] = "Centering before Pruning, 2026"

    def orders(self, tokens: Sequence[VisualTokens], keep: int) -> Tensor:
        rows = [t.features for t in tokens]
        return spread([centred(r) for r in rows], keep, weight=[distinctiveness(r) for r in rows])


@final
@dataclass(frozen=True)
class CenCDPruner(TokenByToken):
    """CDPruner on centred directions; the relevance of a token is multiplied by how much it stands out.

    Source: "Centering before Pruning", 2026, on CDPruner (arXiv:2506.10967).
    Deviates: as `cdpruner` does, word embeddings instead of CLIP's shared space included.
    Cost: O(n d keep) at most.
    """

    name: ClassVar[str] = "cen-cdpruner"
    title: ClassVar[str] = "Cen-Prune + CDPruner"
    source: ClassVar[str] = "Centering before Pruning, 2026"
    wants: ClassVar[frozenset[Signal]] = frozenset({Signal.SHARED_SPACE, Signal.WORDS})
    question_aware: ClassVar[bool] = True

    negate: bool = True

    def orders(self, tokens: Sequence[VisualTokens], keep: int) -> Tensor:
        asked = [relevance(*question(self, t), self.negate) for t in tokens]
        weights = [w * distinctiveness(t.features) for w, t in zip(asked, tokens, strict=True)]
        return dpp([centred(t.features) for t in tokens], weights, keep)
