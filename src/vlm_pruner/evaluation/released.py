"""VLM-Pruner with the habits of the released code, each an option, for tables that shall be repeated to the token."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch

from vlm_pruner.budget import Budget
from vlm_pruner.errors import PlanError
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.methods.vlm_pruner import VLMPruner
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["HABITS", "ReleasedVLMPruner"]

HABITS = ("rounding", "early-stop", "unmerged-grid")
"""What `--official` may name."""

ROUNDINGS = ("ceil", "round", "int")


@final
@dataclass(frozen=True)
class ReleasedVLMPruner(PruningMethod):
    """`VLMPruner` as the repository Casey-bit/VLMPruner @556a914 computes it. Not registered: recipes make it.

    Args:
        reduction_ratio: share of the tokens that is dropped; None leaves the count to the plan.
        rounding: of n (1 - reduction_ratio): "ceil" as here, "round" (half to even) or "int", as the released files do.
        early_stop: a pass that adds nothing ends the growth, also short of the budget.
        unmerged_grid: tokens are laid out in the grid of patches before merging, twice as wide and high: two rows of
            tokens lie on one line, and the diagonal is doubled.

    Raises:
        PlanError: a rounding or a ratio that is none.
    """

    name: ClassVar[str] = "vlm-pruner-released"
    title: ClassVar[str] = "VLM-Pruner (released code)"
    source: ClassVar[str] = "arXiv:2512.02700, github.com/Casey-bit/VLMPruner"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.KEYS})
    default_layer: ClassVar[int | None] = 2
    looks_itself: ClassVar[bool] = True

    reduction_ratio: float | None = None
    rounding: str = "ceil"
    early_stop: bool = False
    unmerged_grid: bool = False

    def __post_init__(self) -> None:
        if self.rounding not in ROUNDINGS:
            raise PlanError(f"rounding={self.rounding!r} is none of {', '.join(ROUNDINGS)}")
        if self.reduction_ratio is not None and not 0 <= self.reduction_ratio < 1:
            raise PlanError(f"reduction_ratio={self.reduction_ratio} must lie in [0, 1)")

    @property
    def budget(self) -> Budget:
        return "ceiling" if self.early_stop or self.rounding != "ceil" else "fixed"

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        method = VLMPruner(fill=not self.early_stop)
        if self.unmerged_grid and tokens.grid is not None and tokens.grid[0] == 1:
            tokens, weight = _unmerged(tokens, method.spatial_weight)
            method = replace(method, spatial_weight=weight)
        return method.select(tokens, min(keep, self.count(len(tokens), keep)))

    def count(self, n: int, keep: int) -> int:
        """Tokens that the released code keeps of n; `keep` where no ratio was given."""
        if self.reduction_ratio is None or self.rounding == "ceil":
            return keep
        exact = n * (1 - self.reduction_ratio)
        return max(1, round(exact) if self.rounding == "round" else int(exact))


def _unmerged(tokens: VisualTokens, weight: float) -> tuple[VisualTokens, float]:
    """The tokens in rows of twice the width, and the weight that makes up for the diagonal of that plane.

    Positions span (rows, 2 w); the released diagonal is that of (2 h, 2 w).
    """
    _, h, w = tokens.grid or (1, 1, len(tokens))
    index = torch.arange(len(tokens), device=tokens.device)
    y, x = index // (2 * w), index % (2 * w)
    place = torch.stack([torch.zeros_like(index), y, x], 1).float()  # [n, 3]
    spanned = math.hypot(int(y.amax()) + 1, int(x.amax()) + 1)
    moved: Any = replace(tokens, position=place)
    return moved, weight * spanned / math.hypot(2 * h, 2 * w)
