"""TOPS: relevance, distance and coverage, added up, before the language model and at two of its layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.budget import Keep
from vlm_pruner.methods._signals import SALIENCE, read, salience
from vlm_pruner.methods._stages import layers, scaled
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.methods.sparsevlm import rate, raters
from vlm_pruner.ops.basic import chosen, cosines, normalise, products
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["Tops", "TopsText", "tops"]


def tops(rows: Tensor, relevance: Tensor, keep: int, alpha: float, coverage: float) -> Tensor:
    """[keep] tokens: the most relevant, then always the best sum of three criteria, each over its candidates' mean.

    The criteria are `relevance` [n]; `alpha` times the distance 1 - cosine to the nearest kept token; `coverage` times
    what the candidate would add to the cosine coverage of the candidates. Needs the [n, n] cosines of `rows` [n, d].
    """
    unit = normalise(rows)
    cosine = cosines(unit, unit)
    relevance = relevance.double()
    best = relevance.argmax().view(1)
    order, free = [best], ~chosen(best, rows.shape[0])
    near = cosine.index_select(0, best).squeeze(0)
    for _ in range(keep - 1):
        gain = products((cosine - near).relu_(), free)
        score = _relative(relevance, free) + alpha * _relative(1 - near, free) + coverage * _relative(gain, free)
        best = score.masked_fill(~free, -torch.inf).argmax().view(1)
        order.append(best)
        free = free.index_fill(0, best, False)
        near = torch.maximum(near, cosine.index_select(0, best).squeeze(0))
    return torch.cat(order)


def _relative(criterion: Tensor, free: Tensor) -> Tensor:
    """`criterion` [n] over its mean among the `free` candidates; zeros where that mean is zero."""
    mean = (criterion * free).sum() / free.sum().clamp_min(1)
    return torch.where(mean.abs() > 1e-12, criterion / torch.where(mean.abs() > 1e-12, mean, 1.0), 0.0)


@final
@dataclass(frozen=True)
class TopsText(PruningMethod):
    """The TOPS choice inside the language model: relevance is the attention of the text that matches the image.

    Source: "TOPS", 2026, stage II.
    Deviates: the attention is that of the layer before; raters are found among all text rows after the image.
    Cost: O(n^2 (d + keep)), an [n, n] matrix in float64; warned about from 8,192 tokens on.
    """

    name: ClassVar[str] = "tops-text"
    title: ClassVar[str] = "TOPS, stage II"
    source: ClassVar[str] = "TOPS, 2026, stage II"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.TEXT, Signal.TEXT_ATTENTION})
    default_layer: ClassVar[int | None] = 12
    question_aware: ClassVar[bool] = True
    slow_from: ClassVar[int | None] = 8192

    alpha: float = 0.5
    coverage: float = 1.0

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        text, attention = read(self, tokens, Signal.TEXT, Signal.TEXT_ATTENTION)
        relevance = rate(attention, raters(tokens.features, text))
        order = tops(tokens.features, relevance, keep, self.alpha, self.coverage)
        return Selection(index=order.sort().values, order=order)

    def stages(self, keep: Keep, num_layers: int) -> list[tuple[PruningMethod, Keep, int | None]]:
        return [(self, keep, layers((12,), num_layers)[0])]


@final
@dataclass(frozen=True)
class Tops(PruningMethod):
    """Keeps twice the budget by [CLS] attention, distance and coverage; the budget at layer 12, a quarter at 24 of 32.

    Source: "TOPS", 2026 (paper only; no code is public).
    Deviates: one weight of the coverage for all budgets (`coverage`; the paper lists 0.5 for 192 and 128, 1.0 for 64
    and 32, other values for other models). Criteria are divided by their mean, as in its algorithm; its text says
    min-max.
    Cost: O(n^2 (d + keep)), an [n, n] matrix in float64; warned about from 8,192 tokens on.
    """

    name: ClassVar[str] = "tops"
    title: ClassVar[str] = "TOPS"
    source: ClassVar[str] = "TOPS, 2026"
    wants: ClassVar[frozenset[Signal]] = SALIENCE
    question_aware: ClassVar[bool] = True
    slow_from: ClassVar[int | None] = 8192

    alpha: float = 0.5
    coverage: float = 1.0

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        order = tops(tokens.features, salience(self, tokens), keep, self.alpha, self.coverage)
        return Selection(index=order.sort().values, order=order)

    def stages(self, keep: Keep, num_layers: int) -> list[tuple[PruningMethod, Keep, int | None]]:
        if isinstance(keep, float) and keep == 1.0:
            return [(self, keep, None)]
        text = TopsText(self.alpha, self.coverage)
        later = dict(zip(layers((12, 24), num_layers), (keep, scaled(keep, 0.25)), strict=True))
        return [(self, scaled(keep, 2.0), None), *((text, k, layer) for layer, k in later.items())]
