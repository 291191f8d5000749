"""LLaVA-PruMerge and PruMerge+: outliers of the [CLS] attention, each enriched by tokens of similar keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._merge import merged
from vlm_pruner.methods._signals import SALIENCE, read, salience
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import chosen, cosines, normalise, others, ranking, top
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["PruMerge", "PruMergePlus", "enrich", "released"]


def enrich(rows: Tensor, keys: Tensor, score: Tensor, index: Tensor, neighbours: int = 32, mean: bool = True) -> Tensor:
    """[k, d] float32 rows of `index` [k] with the `neighbours` of highest key cosine, each weighted by its score.

    With `mean` the weighted mean of the token and its neighbours, else (as released) its row plus their weighted sum.

    Args:
        rows: [n, d]; keys: [n, c]; score: [n], not negative.
    """
    n, x, weight = rows.shape[0], rows.float(), score.float()
    unit = normalise(keys)
    own = index[:, None] == torch.arange(n, device=rows.device)  # [k, n]
    cosine = cosines(unit.index_select(0, index), unit).masked_fill(own, -torch.inf)
    near = cosine.argsort(dim=1, descending=True, stable=True)[:, : min(neighbours, n - 1)]
    share = torch.zeros_like(cosine, dtype=torch.float32).scatter(1, near, 1.0) * weight  # [k, n]
    if not mean:
        return x.index_select(0, index) + share @ x
    share = share + own * weight.clamp_min(1e-12)
    return (share / share.sum(1, keepdim=True)) @ x


def released(score: Tensor, plus: bool) -> Tensor:
    """Tokens that the released, adaptive code keeps, in attention order; their number follows from the `score` [n].

    Outliers above Q3 + 1.5 IQR; with `plus` also every step-th token. Reads the count on the host.
    """
    values, n = score.double(), score.shape[0]
    low, high = torch.quantile(values, values.new_tensor([0.25, 0.75])).unbind()
    ratio = int((values > high + 1.5 * (high - low)).sum()) / n
    outliers = top(values, int(n * ratio))
    step = int(int(1 / ratio) / 3) if plus and ratio else 0
    if not step:
        return outliers
    spaced = torch.arange(0, n - 1, step, device=values.device)
    return torch.cat([outliers, spaced[~chosen(outliers, n)[spaced]]])


def _fixed(tokens: VisualTokens, keys: Tensor, score: Tensor, kept: Tensor, neighbours: int, keep: int) -> Selection:
    """`kept` tokens enriched; if one place is left, the mean of all dropped tokens stands at the best of them."""
    n, rows = len(tokens), tokens.features
    features = enrich(rows, keys.transpose(0, 1).flatten(1), score, kept, neighbours)
    slot = torch.full((n,), -1, device=rows.device)
    if len(kept) < keep:
        dropped = others(kept, n)
        weight = score.index_select(0, dropped).clamp_min(1e-12)
        mean = (weight / weight.sum()).float() @ rows.index_select(0, dropped).float()
        features = torch.cat([features, mean[None]])
        slot = slot.index_fill(0, dropped, keep - 1)
        kept = torch.cat([kept, dropped.index_select(0, top(score.index_select(0, dropped), 1))])
    slot = slot.index_copy(0, kept, torch.arange(keep, device=rows.device))
    return merged(kept, features, slot, rows.dtype)


def _all(tokens: VisualTokens) -> Selection:
    return Selection(index=torch.arange(len(tokens), device=tokens.device))


@final
@dataclass(frozen=True)
class PruMerge(PruningMethod):
    """Keeps the best-attended tokens, enriched by tokens of similar keys, and the mean of all that is dropped.

    Source: Shang et al., "LLaVA-PruMerge", arXiv:2403.15388, ICCV 2025; 42Shawn/LLaVA-PruMerge.
    Deviates: the fixed-budget form that other papers compare: `keep` - 1 tokens and one for the rest, with normalised
    weights; `released` gives the adaptive choice of the code, outside the contract. Attention and keys are those of
    the layer that the projector reads, per head, where the code takes the last layer as one head. Raster order. Towers
    without [CLS] give the mean attention received. With all tokens kept nothing is merged.
    Cost: O(n keep (d + c)).
    """

    name: ClassVar[str] = "prumerge"
    title: ClassVar[str] = "PruMerge"
    source: ClassVar[str] = "arXiv:2403.15388"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.VISION_KEYS})
    wants: ClassVar[frozenset[Signal]] = SALIENCE

    neighbours: int = 32

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        (keys,) = read(self, tokens, Signal.VISION_KEYS)
        score = salience(self, tokens)
        if keep == len(tokens):
            return _all(tokens)
        return _fixed(tokens, keys, score, top(score, max(1, keep - 1)), self.neighbours, keep)


@final
@dataclass(frozen=True)
class PruMergePlus(PruningMethod):
    """PruMerge with half of the budget spread evenly over the tokens that attention leaves out.

    Source: arXiv:2403.15388, PruMerge+; 42Shawn/LLaVA-PruMerge.
    Deviates: as `prumerge`; `keep` // 2 - 1 tokens by attention, the others at even steps of the rest in raster order.
    Cost: O(n keep (d + c)).
    """

    name: ClassVar[str] = "prumerge-plus"
    title: ClassVar[str] = "PruMerge+"
    source: ClassVar[str] = "arXiv:2403.15388"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.VISION_KEYS})
    wants: ClassVar[frozenset[Signal]] = SALIENCE

    neighbours: int = 32

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        (keys,) = read(self, tokens, Signal.VISION_KEYS)
        n, score = len(tokens), salience(self, tokens)
        if keep == n:
            return _all(tokens)
        best = ranking(score)[: max(0, keep // 2 - 1)]
        rest = others(best, n)
        spread = max(1, keep - 1) - len(best)
        steps = torch.arange(spread, device=tokens.device) * len(rest) // spread
        return _fixed(tokens, keys, score, torch.cat([best, rest.index_select(0, steps)]), self.neighbours, keep)
