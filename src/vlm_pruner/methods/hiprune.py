"""HiPrune: anchors from a middle layer of the tower, their neighbours, and the best of a deep layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._signals import raster, read
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import chosen, ranking, top
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["HiPrune", "hiprune"]


def hiprune(middle: Tensor, deep: Tensor, keep: int, width: int, alpha: float = 0.1) -> Tensor:
    """[keep] tokens: round(keep * alpha / 5) anchors by `middle` [n], four neighbours of each, the best by `deep` [n].

    Neighbours are one place and one row of `width` away in raster order, so they wrap around the ends of a row.
    """
    n = middle.shape[0]
    anchors = top(middle, round(keep * alpha / 5))
    near = torch.cat([anchors, anchors - 1, anchors + 1, anchors - width, anchors + width]).clamp(0, n - 1)
    order = ranking(deep)
    first = chosen(near, n).index_select(0, order).int()
    return order.index_select(0, ranking(first))[:keep]


@final
@dataclass(frozen=True)
class HiPrune(PruningMethod):
    """Keeps what a middle layer of the vision tower attends to, with its neighbours, and what a deep layer attends to.

    Source: Liu et al., "HiPrune", arXiv:2508.00553; Danielement321/HiPrune.
    Deviates: the object layer, 9 of CLIP's 24, is that depth of other towers (`object_depth`). Attention received is
    the mean over heads and query rows; the deep layer is the one that the projector reads.
    Cost: O(n log n), and the attention received in every layer of the tower.
    """

    name: ClassVar[str] = "hiprune"
    title: ClassVar[str] = "HiPrune"
    source: ClassVar[str] = "arXiv:2508.00553"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.VISION_ATTENTION})

    alpha: float = 0.1
    object_depth: float = 9 / 23  # share of the layers up to the one that the projector reads

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        attention = read(self, tokens, Signal.VISION_ATTENTION)[0].float()  # [layers, n]
        middle = attention[max(1, round(self.object_depth * len(attention))) - 1]
        order = hiprune(middle, attention[-1], keep, raster(tokens)[2], self.alpha)
        return Selection(index=order.sort().values, order=order)
