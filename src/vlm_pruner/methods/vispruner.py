"""VisPruner: half by [CLS] attention, half by striking out duplicates in attention order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._signals import SALIENCE, salience, site_rows
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import cosines, normalise, ranking
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["VisPruner", "vispruner"]


def vispruner(rows: Tensor, score: Tensor, keep: int, important: float = 0.5, step: int = 8) -> Tensor:
    """[keep] tokens: the int(keep * important) best by `score` [n], then those left of repeated duplicate removal.

    The rest, in order of score, is split into even and odd places; up to `step` tokens at even places with the largest
    cosine (of `rows` [n, c]) to an odd one go; the surviving even ones, most similar first, and the odd ones are split
    again. Needs the [n, n] cosines, once, in float64: the rest is sorted dozens of times, and one pair of near-equal
    tokens that changed places would change all that follows.
    """
    order = ranking(score)
    first = int(keep * important)
    best, left = order[:first], order[first:]
    unit = normalise(rows)
    cosine = cosines(unit, unit)  # [n, n]
    while len(left) > keep - first:
        even, odd = left[0::2], left[1::2]
        if not len(odd):
            break
        nearest = cosine.index_select(0, even).index_select(1, odd).amax(1)
        gone = min(step, len(left) - (keep - first), len(even))
        left = torch.cat([even.index_select(0, ranking(nearest))[gone:], odd])
    return torch.cat([best, left[: keep - first]])


@final
@dataclass(frozen=True)
class VisPruner(PruningMethod):
    """Keeps the tokens that [CLS] attends to, and from the rest those that no other resembles.

    Source: Zhang et al., "Beyond Text-Visual Attention", arXiv:2412.01818, ICCV 2025; Theia-4869/VisPruner.
    Deviates: an odd rest, on which the released code fails, gives the even half one token more; ties are stable. Towers
    without [CLS] give the mean attention received.
    Cost: O(n^2 c + n^3 / 32), an [n, n] matrix in float64; warned about from 8,192 tokens on.
    """

    name: ClassVar[str] = "vispruner"
    title: ClassVar[str] = "VisPruner"
    source: ClassVar[str] = "arXiv:2412.01818"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.VISION_FEATURES})
    wants: ClassVar[frozenset[Signal]] = SALIENCE
    slow_from: ClassVar[int | None] = 8192

    important: float = 0.5

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        order = vispruner(site_rows(self, tokens), salience(self, tokens), keep, self.important)
        return Selection(index=order.sort().values, order=order)
