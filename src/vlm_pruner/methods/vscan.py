"""VScan: what a shallow tower layer sees in every window, what a deep one sees in the whole, and the rest merged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.budget import Keep
from vlm_pruner.errors import MissingSignalError, PlanError
from vlm_pruner.methods._float64 import mean_of_heads, unit_rows
from vlm_pruner.methods._merge import merged
from vlm_pruner.methods._signals import raster
from vlm_pruner.methods._stages import layers, scaled
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.methods.fastv import FastV
from vlm_pruner.ops.basic import chosen, pool, ranking, top
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["VScan", "folded", "vscan", "windows"]


def windows(grid: tuple[int, int, int], side: int, device: torch.device) -> tuple[Tensor, int]:
    """[n] window of each token of a (t, h, w) grid, and how many windows there are.

    Windows are `side` x `side`; rows and columns that are left belong to the last ones. A single row is one window.
    """
    t, h, w = grid
    side = side if h > 1 else w
    down, across = max(1, h // side), max(1, w // side)
    place = torch.arange(t * h * w, device=device)
    row = (place // w % h // side).clamp_max(down - 1)
    column = (place % w // side).clamp_max(across - 1)
    return (place // (h * w) * down + row) * across + column, t * down * across


def vscan(shallow: Tensor, deep: Tensor, keep: int, window: Tensor, count: int) -> Tensor:
    """[keep] tokens: half of them the best by `shallow` [n], shared out over windows, then the best by `deep` [n].

    Of each of the `count` windows in `window` [n] no more than an equal share is taken, rounded up; what the windows
    cannot fill goes to the best left.
    """
    local = keep // 2
    best_first = ranking(shallow)
    where = window.index_select(0, best_first)
    member = (where[:, None] == torch.arange(count, device=window.device)[None]).int()  # [n, windows]
    rank = member.cumsum(0).gather(1, where[:, None]).squeeze(1)  # of a token in its window, from 1 on
    beyond = (rank > -(-local // count)).int()
    first = best_first.index_select(0, beyond.argsort(stable=True)[:local])
    rest = deep.double().masked_fill(chosen(first, len(deep)), -torch.inf)
    return torch.cat([first, top(rest, keep - local)])


def folded(rows: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """[k, d] float32 means of the `kept` [k] of `rows` [n, d], each with the rows that are most like it; [n] its place.

    Likeness is the cosine. A kept row belongs to itself.
    """
    unit = unit_rows(rows)
    slot: Tensor = (unit @ unit.index_select(0, kept).T).argmax(1)
    slot = slot.index_copy(0, kept, torch.arange(len(kept), device=rows.device))
    return pool(rows, slot, len(kept)) / pool(torch.ones_like(rows[:, :1]), slot, len(kept)), slot


@final
@dataclass(frozen=True)
class VScan(PruningMethod):
    """Keeps the best of every window by a shallow tower layer and the best of all by a deep one, and merges the others.

    `keep` by name is the paper's mean over the layers: 64 of 576 gives 96 before the language model and 32 at layer 16
    of 32, by the attention of the last prompt token.

    Args:
        side: of the windows in tokens: 6 for 24 x 24, as released; 4 in the authors' port for other grids.
        shallow_depth: the shallow layer, as a share of the last one: layer 5 of 0 ... 23.

    Source: "VScan", arXiv:2505.22654, TMLR 2026; Tencent/SelfEvolvingAgent.
    Deviates: windows share out any half, so that the count is exact; the code rounds it down to a multiple of 16.
    Towers without [CLS] give the mean attention received, as the port does. Tokens without a grid are one window.
    Original positions are kept.
    Cost: O(n keep d), and the attention of [CLS] in every layer of the tower.
    """

    name: ClassVar[str] = "vscan"
    title: ClassVar[str] = "VScan"
    source: ClassVar[str] = "arXiv:2505.22654"
    wants: ClassVar[frozenset[Signal]] = frozenset(
        {Signal.CLS_ATTENTION, Signal.CLS_ATTENTIONS, Signal.VISION_ATTENTION}
    )
    question_aware: ClassVar[bool] = True

    side: int = 6
    shallow_depth: float = 5 / 23

    def __post_init__(self) -> None:
        if self.side < 1:
            raise PlanError(f"side={self.side} must be at least 1: the width of a window in tokens")
        if not 0 <= self.shallow_depth <= 1:
            raise PlanError(f"shallow_depth={self.shallow_depth} must lie in [0, 1]")

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        shallow, deep = self._scans(tokens)
        order = vscan(shallow, deep, keep, *windows(raster(tokens), self.side, tokens.device))
        features, slot = folded(tokens.features, order)
        return merged(order, features, slot, tokens.features.dtype)

    def _scans(self, tokens: VisualTokens) -> tuple[Tensor, Tensor]:
        vision = tokens.vision
        if vision is not None and vision.cls_attentions is not None and vision.cls_attention is not None:
            every, deep = vision.cls_attentions, mean_of_heads(vision.cls_attention)
        elif vision is not None and vision.attention is not None:
            every, deep = vision.attention, vision.attention[-1].double()
        else:
            raise MissingSignalError(
                f"{self.name} needs CLS_ATTENTIONS (vision.cls_attentions) or, from a tower without CLS, "
                "VISION_ATTENTION (vision.attention); neither is available"
            )
        return every[math.floor(self.shallow_depth * (len(every) - 1) + 0.5)].double(), deep

    def stages(self, keep: Keep, num_layers: int) -> list[tuple[PruningMethod, Keep, int | None]]:
        if isinstance(keep, float) and keep == 1.0:
            return [(self, keep, None)]
        return [(self, scaled(keep, 1.5), None), (FastV(), scaled(keep, 0.5), layers((16,), num_layers)[0])]
