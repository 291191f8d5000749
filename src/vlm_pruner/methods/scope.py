"""SCOPE: coverage of the image, each token's gain weighted by its [CLS] attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from vlm_pruner.methods._signals import SALIENCE, salience, site_rows
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import cosines, normalise
from vlm_pruner.ops.facility import facility
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["Scope", "scope"]


def scope(rows: Tensor, score: Tensor, keep: int, alpha: float = 1.0) -> Tensor:
    """[keep] tokens that greedily raise the cosine coverage of all `rows` [n, c], gains times `score` [n] ** alpha.

    Needs the [n, n] cosines: what a candidate adds is measured on every token.
    """
    unit = normalise(rows)
    return facility(cosines(unit, unit).float()[None], keep, candidate_weight=score.double().pow(alpha)[None])[0]


@final
@dataclass(frozen=True)
class Scope(PruningMethod):
    """Keeps the tokens that cover the others best by cosine, weighted by the attention that [CLS] pays them.

    Source: Deng et al., "SCOPE: Saliency-Coverage Oriented Token Pruning", NeurIPS 2025; kinredon/SCOPE.
    Deviates: attention is the mean over heads, not the sum (the same choice). Towers without [CLS] give the mean
    attention received. Before the language model the rows are the tower's, inside it the residual stream.
    Cost: O(n^2 (c + keep)), an [n, n] matrix.
    """

    name: ClassVar[str] = "scope"
    title: ClassVar[str] = "SCOPE"
    source: ClassVar[str] = "NeurIPS 2025, kinredon/SCOPE"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.VISION_FEATURES})
    wants: ClassVar[frozenset[Signal]] = SALIENCE

    alpha: float = 1.0

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        order = scope(site_rows(self, tokens), salience(self, tokens), keep, self.alpha)
        return Selection(index=order.sort().values, order=order)
