"""Maximal marginal relevance: important tokens that are unlike those already kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.errors import PlanError, unknown_name
from vlm_pruner.methods._float64 import first_best, mean_of_heads, unit_rows
from vlm_pruner.methods._signals import SALIENCE, read, salience
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["MMR", "mmr"]

_NONE: frozenset[Signal] = frozenset()
_READS = {  # importance -> what it needs, and what it wants
    "salience": (_NONE, SALIENCE),
    "norm": (_NONE, _NONE),
    "attention": (frozenset({Signal.LAST_QUERY_ATTENTION}), _NONE),
}


def mmr(rows: Tensor, importance: Tensor, keep: int, balance: float = 0.5) -> Tensor:
    """[keep] tokens in order: first the most important, then always the largest b * importance - (1 - b) * similarity.

    The similarity of a token is its largest cosine to a kept one.

    Args:
        rows: [n, d]; importance: [n], any finite numbers, scaled to [0, 1] here; constant ones count 0.
        balance: b; 1 is importance alone.
    """
    unit = unit_rows(rows)
    relevance = importance.double()
    relevance = relevance - relevance.min()
    relevance = balance * relevance / relevance.max().clamp_min(torch.finfo(torch.float64).tiny)
    order = [first_best(relevance)]
    taken = torch.zeros_like(relevance)
    near = torch.full_like(relevance, -1.0)
    for _ in range(keep - 1):
        near = torch.maximum(near, (unit @ unit.index_select(0, order[-1]).T).squeeze(1))
        taken = taken.index_fill(0, order[-1], torch.inf)
        order.append(first_best(relevance - (1 - balance) * near - taken))
    return torch.cat(order)


@final
@dataclass(frozen=True)
class MMR(PruningMethod):
    """Keeps tokens by a weighted sum of importance and difference from the kept tokens, for any kind of importance.

    Args:
        importance: `salience` is the attention of [CLS], or that received in towers without it; `norm` the length of
            the rows; `attention` that of the last prompt token in the layer before.
        balance: the weight of the importance against that of the unlikeness; 1 is importance alone.

    Source: the rule of "IDPruner", arXiv:2602.13315; Carbonell and Goldstein, "The Use of MMR", SIGIR 1998.
    Deviates: IDPruner trains a scorer, this takes an importance that is there. Importance is scaled to [0, 1]; the
    weights are equal unless said otherwise, which is a choice of this library.
    Cost: O(n d keep), and the rows once in float64.
    """

    name: ClassVar[str] = "mmr"
    title: ClassVar[str] = "MMR"
    source: ClassVar[str] = "arXiv:2602.13315, its rule"
    wants: ClassVar[frozenset[Signal]] = SALIENCE

    importance: str = "salience"
    balance: float = 0.5

    def __post_init__(self) -> None:
        if self.importance not in _READS:
            raise PlanError(unknown_name("importance", self.importance, _READS))
        if not 0 <= self.balance <= 1:
            raise PlanError(f"balance={self.balance} must lie in [0, 1]")
        needs, wants = _READS[self.importance]  # what the class says holds for the default
        for name, value in (("needs", needs), ("wants", wants), ("question_aware", self.importance == "attention")):
            object.__setattr__(self, name, value)

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        order = mmr(tokens.features, self._scored(tokens), keep, self.balance)
        return Selection(index=order.sort().values, order=order)

    def _scored(self, tokens: VisualTokens) -> Tensor:
        if self.importance == "norm":
            rows = tokens.features.double()
            largest = rows.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
            length: Tensor = (rows / largest).norm(dim=1)
            return length
        if self.importance == "attention":
            return mean_of_heads(read(self, tokens, Signal.LAST_QUERY_ATTENTION)[0])
        return salience(self, tokens)
