"""CLS-attention top-k: the simplest choice by the vision tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from vlm_pruner.methods._signals import SALIENCE, salience
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import top
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["ClsAttention"]


@final
@dataclass(frozen=True)
class ClsAttention(PruningMethod):
    """Keeps the tokens that the [CLS] row of the vision tower attends to most, mean over heads.

    Source: Zhang et al., "[CLS] Attention is All You Need for Training-Free Visual Token Pruning" (FasterVLM),
    arXiv:2412.01818v1; Theia-4869/FasterVLM.
    Deviates: towers without [CLS] give the mean attention received.
    Cost: O(n log n).
    """

    name: ClassVar[str] = "cls-attention"
    title: ClassVar[str] = "FasterVLM (CLS attention)"
    source: ClassVar[str] = "arXiv:2412.01818v1"
    wants: ClassVar[frozenset[Signal]] = SALIENCE

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        order = top(salience(self, tokens), keep)
        return Selection(index=order.sort().values, order=order)
