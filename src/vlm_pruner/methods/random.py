"""Random choice, the baseline that many published methods do not beat."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["RandomPrune"]


@final
@dataclass(frozen=True)
class RandomPrune(PruningMethod):
    """Keeps random tokens; the choice depends only on the seed, the number of tokens and `keep`.

    Cost: O(n).
    """

    name: ClassVar[str] = "random"
    title: ClassVar[str] = "Random"
    source: ClassVar[str] = "baseline"

    seed: int = 0

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        order = _drawn(self.seed, len(tokens), keep, tokens.device).clone()  # [k]
        return Selection(index=order.sort().values, order=order)


@functools.lru_cache(maxsize=64)
def _drawn(seed: int, n: int, keep: int, device: torch.device) -> Tensor:
    """[keep] by the generator of the CPU, the same for every device; handed over once."""
    return torch.randperm(n, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")[:keep].to(device)
