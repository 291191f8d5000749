"""DivPrune: the most diverse tokens, by max-min cosine distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from vlm_pruner.methods._order import TokenByToken
from vlm_pruner.ops import spread
from vlm_pruner.types import VisualTokens

__all__ = ["DivPrune"]


@final
@dataclass(frozen=True)
class DivPrune(TokenByToken):
    """Keeps diverse tokens (max-min): every token added is the one farthest from those chosen before.

    Deviates from the released code: float32 whatever the dtype; a chosen token cannot be chosen again; a zero row has
    cosine 0 with everything instead of NaN; original positions are kept, not repacked.
    Cost: O(n^2 d) at most for the first token, then O(n d keep) at most.
    """

    name: ClassVar[str] = "divprune"
    title: ClassVar[str] = "DivPrune"
    source: ClassVar[str] = "arXiv:2503.02175, Alg. 1"

    def orders(self, tokens: Sequence[VisualTokens], keep: int) -> Tensor:
        return spread([t.features for t in tokens], keep)
