"""VisionZip: dominant tokens by [CLS] attention, and contextual tokens that take in the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._merge import merged
from vlm_pruner.methods._signals import SALIENCE, read, salience
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import cosines, normalise, others, pool, top
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["VisionZip", "visionzip"]


def visionzip(
    rows: Tensor, metric: Tensor, score: Tensor, dominant: int, contextual: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Dominant tokens, targets, the merged rows of the targets, and which of them took in each token.

    A target's row is its own plus the *mean* of those that were sent to it, as in the released code.

    Args:
        rows: [n, d], what is merged.
        metric: [n, c], compared by cosine.
        score: [n], large for dominant tokens.
        dominant, contextual: how many of each, at least one target.

    Returns:
        [dominant] and [contextual], both ascending; [contextual, d]; [n] place of the target, -1 for dominant tokens.
    """
    n = rows.shape[0]
    first = top(score, dominant).sort().values
    rest = others(first, n)  # [m]
    m = n - dominant
    place = torch.arange(contextual, device=rows.device) * max(1, m // contextual)
    targets = rest.index_select(0, place)
    sent = others(place, m)  # places in `rest`
    direction = normalise(metric).index_select(0, rest)
    slot = cosines(direction.index_select(0, sent), direction.index_select(0, place)).argmax(1)
    away = rest.index_select(0, sent)
    members = rows.index_select(0, away)
    count = pool(torch.ones_like(members[:, :1]), slot, contextual)
    into = rows.index_select(0, targets).float() + pool(members, slot, contextual) / count.clamp_min(1)
    owner = torch.full((n,), -1, device=rows.device)
    owner = owner.index_copy(0, targets, torch.arange(contextual, device=rows.device))
    return first, targets, into.to(rows.dtype), owner.index_copy(0, away, slot)


@final
@dataclass(frozen=True)
class VisionZip(PruningMethod):
    """Keeps the tokens that [CLS] attends to, and folds all others into a few evenly spaced contextual ones.

    Source: Yang et al., "VisionZip", arXiv:2412.04467, CVPR 2025; dvlab-research/VisionZip.
    Deviates: the [CLS] row is no token of the language model here, its place goes to one more dominant patch (64 =
    54 + 10). Rows are merged after the projector, with the weights found before it. A contextual token stands at its
    target's place. Towers without [CLS] give the mean attention received, as the authors' port does.
    Cost: O(n keep (d + head_dim)).
    """

    name: ClassVar[str] = "visionzip"
    title: ClassVar[str] = "VisionZip"
    source: ClassVar[str] = "arXiv:2412.04467"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.VISION_KEYS})
    wants: ClassVar[frozenset[Signal]] = SALIENCE

    contextual: float = 10 / 64  # share of the budget

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        rows, score = tokens.features, salience(self, tokens)
        metric = read(self, tokens, Signal.VISION_KEYS)[0].double().mean(0)  # [n, head_dim]
        context = min(int(self.contextual * keep + 0.5), keep - 1) if keep < len(tokens) else 0
        if not context:
            order = top(score, keep)
            return Selection(index=order.sort().values, order=order)
        first, targets, into, owner = visionzip(rows, metric, score, keep - context, context)
        slot = torch.where(owner >= 0, owner + len(first), -1)
        slot = slot.index_copy(0, first, torch.arange(len(first), device=rows.device))
        features = torch.cat([rows.index_select(0, first), into])
        return merged(torch.cat([first, targets]), features, slot, rows.dtype)
