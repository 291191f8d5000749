"""VLM-Pruner+: the tokens that cover the picture best, those that stand out counted for more, the rest folded in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.errors import PlanError
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.methods.cen_prune import distinctiveness
from vlm_pruner.ops import facility, merge
from vlm_pruner.ops.basic import cosines, normalise
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["VLMPrunerPlus"]


@final
@dataclass(frozen=True)
class VLMPrunerPlus(PruningMethod):
    """VLM-Pruner with coverage gain in place of its largest similarity, so that it needs neither keys nor a grid.

    Greedily adds the token whose cosines to all tokens raise their coverage most; a token that stands out (whose mean
    cosine to the others is low) counts for more. Every dropped token is then folded into its most similar survivor, as
    in VLM-Pruner, which makes the mean of what each survivor covers the row that the next layers read.

    Args:
        emphasis: power of the distinctiveness in [0, 1] by which a token counts; 0 counts all alike.
        self_weight: share of a survivor's own row when dropped tokens are folded into it.
        merge: fold dropped tokens into the survivors; without it survivors keep their rows.

    Source: VLM-Pruner, arXiv:2512.02700, with the distinctiveness of "Centering before Pruning", 2026.
    Deviates from VLM-Pruner by steps that were chosen on validation scenes of the embedded model alone; docs/preset.md
    has the ablation, and the candidates that did not pay.
    Cost: O(n^2 (d + keep)), an [n, n] matrix.

    Raises:
        PlanError: a parameter outside its range.
    """

    name: ClassVar[str] = "vlm-pruner-plus"
    title: ClassVar[str] = "VLM-Pruner+ (ours)"
    source: ClassVar[str] = "this library, 2026"
    default_layer: ClassVar[int | None] = 2

    emphasis: float = 0.5
    self_weight: float = 0.3
    merge: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.emphasis < float("inf"):
            raise PlanError(f"emphasis={self.emphasis} must be a finite number >= 0")
        if not 0 <= self.self_weight <= 1:
            raise PlanError(f"self_weight={self.self_weight} must lie in [0, 1]")

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        unit = normalise(tokens.features)
        order = cover(unit, distinctiveness(tokens.features), keep, self.emphasis)
        index = order.sort().values
        similarity, owner = cosines(unit, unit.index_select(0, index)).max(1)  # [n]
        slots = torch.arange(keep, device=index.device)
        source = owner.index_copy(0, index, slots)
        if not self.merge:
            return Selection(index, order, source=source)
        rows = merge([tokens.features], index[None], source[None], similarity.float()[None], self.self_weight)[0]
        return Selection(index, order, rows, source)


def cover(unit: Tensor, stands_out: Tensor, keep: int, emphasis: float) -> Tensor:
    """[keep] tokens in order: each the one that most raises the coverage of all, weighted by `stands_out` [n].

    A token of `unit` [n, d] covers another by their cosine, if that is positive. Least weights are a thousandth of the
    largest, so that a token like all others is still seen. Needs the [n, n] cosines.
    """
    weight = stands_out.clamp_min(1e-3).pow(emphasis)
    return facility(cosines(unit, unit).clamp_min_(0).float()[None], keep, row_weight=weight[None])[0]
