"""A method's choice without the rows that it merges: what is merged is no row of the full model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

from vlm_pruner.budget import Budget
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.plan import PrunePlan
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["choices_of"]


@final
@dataclass(frozen=True)
class ChoiceOnly(PruningMethod):
    """What another method chooses, with nothing written over the survivors."""

    name: ClassVar[str] = "choice-only"
    title: ClassVar[str] = "Choice only"
    source: ClassVar[str] = "for checks"

    method: PruningMethod

    def __post_init__(self) -> None:
        for signals in ("needs", "wants"):
            object.__setattr__(self, signals, getattr(self.method, signals))

    @property
    def budget(self) -> Budget:
        return self.method.budget

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        return replace(self.method.select(tokens, keep), features=None)

    def select_batch(self, tokens: Sequence[VisualTokens], keep: Sequence[int]) -> list[Selection]:
        return [replace(one, features=None) for one in self.method.select_batch(tokens, keep)]


def choices_of(plan: PrunePlan) -> PrunePlan:
    """The same plan without merging, and without the bias of what is merged."""
    stages = tuple(replace(stage, method=ChoiceOnly(stage.method), bias=None) for stage in plan.stages)
    return replace(plan, stages=stages)
