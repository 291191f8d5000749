"""Random choice, the baseline that many published methods do not beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch

from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["RandomPrune"]


@final
@dataclass(frozen=True)
class RandomPrune(PruningMethod):
    """A uniform choice without replacement that depends on the seed, n and keep alone.

    Cost: O(n).
    """

    name: ClassVar[str] = "random"
    title: ClassVar[str] = "Random"
    source: ClassVar[str] = "baseline"

    seed: int = 0

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(tokens), generator=generator)[:keep].to(tokens.device)  # [k]
        return Selection(index=order.sort().values, order=order)
