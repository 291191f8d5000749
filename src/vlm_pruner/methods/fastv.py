"""FastV: keep what the last prompt token attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from vlm_pruner.methods._signals import read
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import mean, top
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["FastV", "fastv"]


def fastv(attention: Tensor, keep: int) -> Tensor:
    """[keep] tokens with the largest head-mean of `attention` [heads, n], the row of the last prompt token."""
    return top(mean(attention, 0), keep)


@final
@dataclass(frozen=True)
class FastV(PruningMethod):
    """Keeps the tokens that the last prompt token attends to most in layer 1.

    Source: Chen et al., "An Image is Worth 1/2 Tokens After Layer 2", arXiv:2403.06764, ECCV 2024; pkunlp-icler/FastV.
    Deviates: the paper speaks of average attention, its code (and this) reads the last row only. That one row is
    recomputed from queries and keys, so that no layer has to run in eager mode. Prefill only.
    Cost: O(n log n), and one row of attention.
    """

    name: ClassVar[str] = "fastv"
    title: ClassVar[str] = "FastV"
    source: ClassVar[str] = "arXiv:2403.06764"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.LAST_QUERY_ATTENTION})
    default_layer: ClassVar[int | None] = 2
    question_aware: ClassVar[bool] = True

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        (attention,) = read(self, tokens, Signal.LAST_QUERY_ATTENTION)
        order = fastv(attention, keep)
        return Selection(index=order.sort().values, order=order)
