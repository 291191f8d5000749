"""ToMe: bipartite merging of alike tokens, half of them at most at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._merge import merged
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import cosines, normalise, pool, ranking
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["ToMe", "match", "tome"]


def match(metric: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """One round of bipartite soft matching that merges `r` of the T tokens of `metric` [T, c], r <= T // 2.

    Tokens at even places look for their best cosine among those at odd places; the r best pairs merge into the odd one.

    Returns:
        The places [T - r] that stay, unmerged even ones ascending and then the odd ones, and for every token its new
        place [T].
    """
    unit = normalise(metric)
    a, b = unit[0::2], unit[1::2]
    best, partner = cosines(a, b).max(1)
    order = ranking(best)
    gone, alone = order[:r], order[r:].sort().values
    places = torch.arange(metric.shape[0], device=metric.device)
    fresh = torch.empty_like(places)
    even = torch.empty_like(partner).index_copy(0, alone, places[: len(alone)])
    fresh[0::2] = even.index_copy(0, gone, len(alone) + partner.index_select(0, gone))
    fresh[1::2] = len(alone) + places[: b.shape[0]]
    return torch.cat([2 * alone, places[1::2]]), fresh


def tome(rows: Tensor, metric: Tensor, keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens that stay [keep], their merged rows [keep, d] float32, and the place of every token among them [n].

    Rounds of `match` on `metric` [n, c]; rows and metric of a merged token are means weighted by the tokens in it.
    """
    x, m = rows.float(), metric.double()
    index = slot = torch.arange(rows.shape[0], device=rows.device)
    size = torch.ones(rows.shape[0], dtype=torch.float32, device=rows.device)
    while len(index) > keep:
        stay, fresh = match(m, min(len(index) // 2, len(index) - keep))
        total = pool(size[:, None], fresh, len(stay))
        x, m = pool(x, fresh, len(stay), size) / total, pool(m, fresh, len(stay), size, torch.float64) / total
        index, slot, size = index.index_select(0, stay), fresh.index_select(0, slot), total.squeeze(1)
    return index, x, slot


@final
@dataclass(frozen=True)
class ToMe(PruningMethod):
    """Merges the tokens of the most similar keys, round after round, until `keep` are left.

    Source: Bolya et al., "Token Merging: Your ViT But Faster", arXiv:2210.09461, ICLR 2023; facebookresearch/ToMe.
    Deviates: all rounds take place at one site instead of one round per block of the tower, on the tower's last keys
    and on projected rows; attention is not biased by the sizes. A merged token stands at the place of the odd one.
    Without the keys of the tower the rows themselves are compared.
    Cost: O(n^2 (c + d)), a quarter of the [n, n] matrix.
    """

    name: ClassVar[str] = "tome"
    title: ClassVar[str] = "ToMe"
    source: ClassVar[str] = "arXiv:2210.09461"
    wants: ClassVar[frozenset[Signal]] = frozenset({Signal.VISION_KEYS})

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        vision = tokens.vision
        keys = None if vision is None or vision.keys is None else vision.keys.double().mean(0)  # [n, head_dim]
        index, rows, slot = tome(tokens.features, tokens.features if keys is None else keys, keep)
        return merged(index, rows, slot, tokens.features.dtype)
