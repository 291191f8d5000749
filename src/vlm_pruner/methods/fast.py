"""Fast: few patches enter the tower, and VLM-Pruner+ leaves fewer tokens to most of the language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

from vlm_pruner.budget import Keep
from vlm_pruner.errors import PlanError
from vlm_pruner.methods._stages import scaled
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.methods.divprune import DivPrune
from vlm_pruner.methods.vlm_pruner_plus import VLMPrunerPlus
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["Fast"]


@final
@dataclass(frozen=True)
class Fast(PruningMethod):
    """A plan for the whole pipeline: DivPrune before the tower, VLM-Pruner+ before decoder layer 2.

    `keep` by name is what is left at the end; `times` as many tokens enter the tower. By itself, at one place, it is
    VLM-Pruner+.

    Args:
        times: tokens that enter the tower, in multiples of `keep`; from all tokens on it is left whole.

    Source: this library, 2026. Chosen on validation scenes of the embedded model by time to first token; docs/fast.md
    has the other plans.
    Deviates from both methods in nothing but their places and counts.
    Cost: O(n^2 c) before the tower, and O((times keep)^2 (d + keep)) behind it.

    Raises:
        PlanError: `times` below 1.
    """

    name: ClassVar[str] = "fast"
    title: ClassVar[str] = "Fast (ours)"
    source: ClassVar[str] = "this library, 2026"

    times: float = 3.0

    def __post_init__(self) -> None:
        if not 1 <= self.times < float("inf"):
            raise PlanError(f"times={self.times} must be at least 1")

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        return VLMPrunerPlus().select(tokens, keep)

    def stages(self, keep: Keep, num_layers: int) -> list[tuple[PruningMethod, Keep, Any]]:
        if keep == 1.0 and isinstance(keep, float):
            return [(self, keep, None)]
        last = VLMPrunerPlus()
        place = min(2, num_layers - 1) or None
        return [(DivPrune(), scaled(keep, self.times), "tower"), (last, keep, place)]
