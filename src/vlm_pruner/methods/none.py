"""No pruning: the yardstick of every comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch

from vlm_pruner.budget import Keep
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["NoPruning"]


@final
@dataclass(frozen=True)
class NoPruning(PruningMethod):
    """Keeps every token, whatever the budget.

    Cost: nothing.
    """

    name: ClassVar[str] = "none"
    title: ClassVar[str] = "No pruning"
    source: ClassVar[str] = "baseline"

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        return Selection(index=torch.arange(len(tokens), device=tokens.device))

    def stages(self, keep: Keep, num_layers: int) -> list[tuple[PruningMethod, Keep, int | None]]:
        return [(self, 1.0, None)]
