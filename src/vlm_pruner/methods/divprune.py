"""DivPrune: the most diverse tokens, by max-min cosine distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from vlm_pruner.methods.base import PruningMethod, select_alike
from vlm_pruner.ops import spread
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["DivPrune"]


@final
@dataclass(frozen=True)
class DivPrune(PruningMethod):
    """Max-min diversity of the features: every token added is the one farthest from those chosen before.

    Deviates from the released code: float32 whatever the dtype; a chosen token cannot be chosen again; a zero row has
    cosine 0 with everything instead of NaN; original positions are kept, not repacked.
    Cost: O(n^2 d) at most for the first token, then O(n d keep).
    """

    name: ClassVar[str] = "divprune"
    title: ClassVar[str] = "DivPrune"
    source: ClassVar[str] = "arXiv:2503.02175, Alg. 1"

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        return self._select_equal([tokens], keep)[0]

    def select_batch(self, tokens: Sequence[VisualTokens], keep: Sequence[int]) -> list[Selection]:
        """Images of equal shape and budget are chosen from together."""
        return select_alike(tokens, keep, lambda t: (t.features.shape, t.features.dtype, t.device), self._select_equal)

    def _select_equal(self, tokens: Sequence[VisualTokens], keep: int) -> list[Selection]:
        orders = spread([t.features for t in tokens], keep)  # [B, keep]
        return [Selection(index=i, order=o) for i, o in zip(orders.sort(1).values, orders, strict=True)]
