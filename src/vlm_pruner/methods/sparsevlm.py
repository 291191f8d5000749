"""SparseVLM: question words that match the image rate its tokens; the best of what is dropped is clustered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.budget import Keep
from vlm_pruner.methods._merge import merged
from vlm_pruner.methods._signals import read
from vlm_pruner.methods._stages import counts, layers
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import mean, others, pool, top
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["SparseVLM", "SparseVLMPlus", "cluster", "raters", "recycled_count"]

_LAYERS = (3, 7, 16)  # inputs of these layers: after the forward of layers 2, 6 and 15 of 32
_V1 = {64: (66, 30, 17), 96: (238, 48, 26), 128: (303, 110, 36), 192: (300, 200, 110)}
_V2 = {64: (66, 34, 20), 96: (246, 54, 28), 128: (238, 108, 60), 192: (300, 200, 118)}
_NEEDS = frozenset({Signal.TEXT_ATTENTION, Signal.WORDS, Signal.EMBEDDINGS})


def raters(embeddings: Tensor, words: Tensor) -> Tensor:
    """[t] zeros and ones: the words [t, d] whose softmax over text, averaged over the image, is above average.

    All words rate where none stands out. `embeddings` [n, d] are the image's rows at the input of the language model.
    """
    share = mean((embeddings.double() @ words.double().T).softmax(-1), 0)  # [t]
    above = share > mean(share, 0)
    return torch.where(above.any(), above, True).double()


def rate(attention: Tensor, rater: Tensor, heads: float = 1.0) -> Tensor:
    """[n] mean attention [heads, t, n] of the raters [t] over the share `heads` of heads that see most of the image."""
    rated = (attention.double() * rater[None, :, None]).sum(1) / rater.sum()  # [heads, n]
    best = top(rated.sum(-1), max(1, round(heads * rated.shape[0])))
    return mean(rated.index_select(0, best), 0)


def recycled_count(dropped: int) -> tuple[int, int]:
    """(tokens that are clustered, clusters) among `dropped` ones."""
    pooled = int(0.3 * dropped) + 1
    return pooled, pooled // 10 + 1


def _split(total: int, keep: int) -> int:
    """Clusters c such that keep - c survivors and c clusters make up `keep`; at most half of it."""
    clusters = 0
    while clusters < keep // 2 and clusters < recycled_count(total - keep + clusters)[1]:
        clusters += 1
    return clusters if keep < total else 0


def cluster(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Density-peak clusters of `rows` [m, d]: centres [k], and for every row the slot of its centre [m].

    Density counts the k nearest rows, itself among them; ties go to the lower index. Needs the [m, m] distances.
    """
    m = rows.shape[0]
    x = rows.float().double()
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") / x.shape[1] ** 0.5
    density = (-distance.topk(k, dim=1, largest=False).values.square().mean(1)).exp()  # [m]
    place = torch.arange(m, device=rows.device)
    denser = (density > density[:, None]) | ((density == density[:, None]) & (place < place[:, None]))  # [m, m]
    peak = torch.where(denser, distance, distance.max()).amin(1)
    centres = top(density * peak, k)
    slot = distance.index_select(1, centres).argmin(1)
    return centres, slot.index_copy(0, centres, torch.arange(k, device=rows.device))


def _recycle(rows: Tensor, score: Tensor, keep: int) -> Selection:
    """The best by `score` [n], and cluster means of the best that is dropped in the places of the cluster centres."""
    n, clusters = len(score), _split(len(score), keep)
    kept = top(score, keep - clusters)
    dropped = others(kept, n)
    pooled = min(max(recycled_count(n - keep + clusters)[0], clusters), n - keep + clusters)
    best = dropped.index_select(0, top(score.index_select(0, dropped), pooled))
    members = rows.index_select(0, best)
    centres, slot = cluster(members, clusters)
    means = pool(members, slot, clusters) / pool(torch.ones_like(members[:, :1]), slot, clusters)
    order = torch.cat([kept, best.index_select(0, centres)])
    own = torch.arange(keep - clusters, device=rows.device)
    place = torch.full((n,), -1, device=rows.device).index_copy(0, kept, own)
    features = torch.cat([rows.index_select(0, kept).float(), means])
    return merged(order, features, place.index_copy(0, best, slot + len(own)), rows.dtype)


@final
@dataclass(frozen=True)
class SparseVLM(PruningMethod):
    """Keeps what the matching words of the question attend to, and cluster means of the best others, at three depths.

    `keep` by name is the paper's nominal, roughly layer-averaged budget: 192, 128 and 64 use its lists of survivors
    plus the clusters that they leave (64: 82, 32 and 18 tokens), others lie between them. The distances inside the
    clustered pool (m = 0.3 of the dropped tokens) are an [m, m] matrix.

    Source: Zhang et al., "SparseVLM", arXiv:2410.04417, ICML 2025; Gumpest/SparseVLMs, v1.0.
    Deviates: clusters count in `keep`, and each stands at the place of its centre with that position; the code appends
    them with contiguous positions. Its random tie breaker is left out. Raters are found anew at each stage, from the
    surviving image tokens. At most half of the budget is clusters.
    Cost: O(heads t n) a stage, and O(m^2 d) for the clusters of m tokens.
    """

    name: ClassVar[str] = "sparsevlm"
    title: ClassVar[str] = "SparseVLM"
    source: ClassVar[str] = "arXiv:2410.04417"
    needs: ClassVar[frozenset[Signal]] = _NEEDS
    default_layer: ClassVar[int | None] = 3
    question_aware: ClassVar[bool] = True

    recycle: bool = True

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        score = _score(self, tokens, 1.0)
        if self.recycle and _split(len(tokens), keep):
            return _recycle(tokens.features, score, keep)
        order = top(score, keep)
        return Selection(index=order.sort().values, order=order)

    def stages(self, keep: Keep, num_layers: int) -> list[tuple[PruningMethod, Keep, int | None]]:
        table = {k: _with_clusters(v) for k, v in _V1.items()} if self.recycle else _V1
        stages = zip(layers(_LAYERS, num_layers), counts(table, keep), strict=True)
        return [(self, k, layer) for layer, k in dict(stages).items()]


@final
@dataclass(frozen=True)
class SparseVLMPlus(PruningMethod):
    """SparseVLM 2.0: no clusters, and only the heads that look at the image most.

    Source: arXiv:2410.04417, ICML 2025; Gumpest/SparseVLMs with USE_VERSION=2_0.
    Deviates: 14 of 32 heads become that share of the model's heads. The division of the attention by a rotary bias is
    left out: a method sees no rotary frequencies. Raters are found anew at each stage.
    Cost: O(heads t n) a stage.
    """

    name: ClassVar[str] = "sparsevlm-plus"
    title: ClassVar[str] = "SparseVLM+"
    source: ClassVar[str] = "arXiv:2410.04417, v2.0 of the code"
    needs: ClassVar[frozenset[Signal]] = _NEEDS
    default_layer: ClassVar[int | None] = 3
    question_aware: ClassVar[bool] = True

    heads: float = 14 / 32

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        order = top(_score(self, tokens, self.heads), keep)
        return Selection(index=order.sort().values, order=order)

    def stages(self, keep: Keep, num_layers: int) -> list[tuple[PruningMethod, Keep, int | None]]:
        stages = zip(layers(_LAYERS, num_layers), counts(_V2, keep), strict=True)
        return [(self, k, layer) for layer, k in dict(stages).items()]


def _score(method: PruningMethod, tokens: VisualTokens, heads: float) -> Tensor:
    attention, words, embeddings = read(method, tokens, Signal.TEXT_ATTENTION, Signal.WORDS, Signal.EMBEDDINGS)
    return rate(attention, raters(embeddings, words), heads)


def _with_clusters(survivors: tuple[int, ...], total: int = 576) -> tuple[int, ...]:
    """Counts after each stage, clusters included: (300, 200, 110) of 576 gives (309, 204, 113)."""
    result: list[int] = []
    for count in survivors:
        total = count + recycled_count(total - count)[1]
        result.append(total)
    return tuple(result)
