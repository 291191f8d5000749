"""Farthest-point sampling from a random start: DivPrune without its choice of the first token."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from vlm_pruner.methods._order import TokenByToken
from vlm_pruner.ops import spread
from vlm_pruner.types import VisualTokens

__all__ = ["FarthestPoints"]


@final
@dataclass(frozen=True)
class FarthestPoints(TokenByToken):
    """Keeps tokens that lie far apart by cosine; the first depends only on the seed and the number of tokens.

    Source: baseline (Gonzalez, 1985).
    Deviates: nothing.
    Cost: O(n d keep) at most.
    """

    name: ClassVar[str] = "fps"
    title: ClassVar[str] = "Farthest points, random start"
    source: ClassVar[str] = "baseline"

    seed: int = 0

    def orders(self, tokens: Sequence[VisualTokens], keep: int) -> Tensor:
        start = random.Random(self.seed).randrange(len(tokens[0]))
        return spread([t.features for t in tokens], keep, start=start)
