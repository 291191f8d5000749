"""What was tried on the way to the preset: every candidate as a plan for a budget, in the order of docs/preset.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from benchmarks.dense import GRID, Picture
from torch import Tensor

from vlm_pruner.budget import Keep
from vlm_pruner.methods._signals import read, salience
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.methods.cen_prune import centred, distinctiveness
from vlm_pruner.methods.vlm_pruner import geometry
from vlm_pruner.methods.vlm_pruner_plus import VLMPrunerPlus
from vlm_pruner.ops import facility, farthest_points, merge
from vlm_pruner.ops.basic import normalise, top
from vlm_pruner.plan import PrunePlan, Stage
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["CANDIDATES", "RIVALS", "STEPS", "Candidate", "named"]

LAYERS, SITE = 8, 2
Candidate = Callable[[Picture, int], PrunePlan]


@final
@dataclass(frozen=True)
class Variant(PruningMethod):
    """The published growth one token at a time (`growth`), or coverage gain, with one thing changed."""

    name: ClassVar[str] = "preset-variant"
    title: ClassVar[str] = "Variant"
    source: ClassVar[str] = "benchmark"
    wants: ClassVar[frozenset[Signal]] = frozenset({Signal.KEYS, Signal.CLS_ATTENTION})

    rule: Literal["growth", "cover"] = "cover"
    centre: bool = False  # compare directions from the mean of the picture
    emphasis: float = 0.0  # power of the distinctiveness of the token that is covered, or grown
    gain: float = 0.0  # power of the distinctiveness of the token that covers
    attention: float = 0.0  # power of the [CLS] attention of the token that is covered
    sharp: float = 1.0  # power of the cosine
    spatial: float = 0.0  # how much a distance of one diagonal counts
    sign_fix: bool = False  # a distance never makes a token with a negative similarity look less redundant
    pivots: Literal["keys", "space"] = "keys"
    merge: bool = True
    same_norm: bool = False  # merged rows keep the norm of the survivor

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        rows = tokens.features.float()
        raw, unit = normalise(rows), centred(rows) if self.centre else normalise(rows)
        weight = distinctiveness(rows).clamp_min(1e-3).pow(self.emphasis)
        if self.attention:
            weight = weight * salience(self, tokens).pow(self.attention)
        order = (
            self._cover(tokens, unit, weight, keep) if self.rule == "cover" else self._grow(tokens, unit, weight, keep)
        )
        index = order.sort().values
        similarity, source = (raw @ raw[index].T).max(1)
        source = source.index_copy(0, index, torch.arange(keep))
        if not self.merge:
            return Selection(index, order, source=source)
        merged = merge([rows], index[None], source[None], similarity[None], 0.3)[0]
        if self.same_norm:
            merged = merged * (rows[index].norm(dim=1, keepdim=True) / merged.norm(dim=1, keepdim=True).clamp_min(1e-6))
        return Selection(index, order, merged, source)

    def _cover(self, tokens: VisualTokens, unit: Tensor, weight: Tensor, keep: int) -> Tensor:
        cosine = (unit @ unit.T).clamp_min(0).pow(self.sharp)
        if self.spatial:
            place, diagonal = geometry(tokens, 1.0)
            cosine = cosine / (1 + self.spatial * torch.cdist(place, place) / diagonal)
        gain = distinctiveness(tokens.features).clamp_min(1e-3).pow(self.gain) if self.gain else None
        gain = None if gain is None else gain[None]
        return facility(cosine[None], keep, row_weight=weight[None], candidate_weight=gain)[0]

    def _grow(self, tokens: VisualTokens, unit: Tensor, weight: Tensor, keep: int) -> Tensor:
        """The least redundant token, again and again: no thresholds and no blocks."""
        place, diagonal = geometry(tokens, 1.0)
        order = self._first(tokens, min(4, keep))
        near, close = (unit @ unit[order].T).amax(1), torch.cdist(place, place[order]).amin(1)
        while len(order) < keep:
            factor = 1 + self.spatial * close / diagonal
            redundancy = near * (torch.where(near > 0, factor, 1.0) if self.sign_fix else factor)
            score = (2 - redundancy) * weight
            order.append(int(score.index_fill(0, torch.tensor(order), -torch.inf).argmax()))
            near = torch.maximum(near, unit @ unit[order[-1]])
            close = torch.minimum(close, (place - place[order[-1]]).norm(dim=1))
        return torch.tensor(order)

    def _first(self, tokens: VisualTokens, count: int) -> list[int]:
        if self.pivots == "space":
            return [y * GRID + x for y in (GRID // 4, 3 * GRID // 4) for x in (GRID // 4, 3 * GRID // 4)][:count]
        assert tokens.keys is not None
        return [int(i) for i in farthest_points([tokens.keys], count)[0]]


@final
@dataclass(frozen=True)
class LastRow(PruningMethod):
    """A second stage that sees the question: what the last prompt token, or all of its text, attends to."""

    name: ClassVar[str] = "preset-attention"
    title: ClassVar[str] = "Attention"
    source: ClassVar[str] = "benchmark"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.TEXT_ATTENTION})
    question_aware: ClassVar[bool] = True

    whole: bool = False

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        (attention,) = read(self, tokens, Signal.TEXT_ATTENTION)  # [heads, t, n]
        order = top((attention if self.whole else attention[:, -1:]).mean((0, 1)), keep)
        return Selection(order.sort().values, order)


def _plan(*stages: tuple[PruningMethod, Keep, int | None]) -> PrunePlan:
    return PrunePlan(tuple(Stage(*stage) for stage in stages))


def named(name: str, layer: int | None = None, **params: object) -> Candidate:
    """A registered method by name, at its own layers or at `layer`."""
    return lambda picture, keep: PrunePlan.of(name, keep, layer, num_layers=LAYERS, **params)


def _at_site(method: PruningMethod) -> Candidate:
    return lambda picture, keep: _plan((method, keep, SITE))


def _later(layer: int, share: float, attention: PruningMethod) -> Candidate:
    """More tokens up to `layer` and `share` of `keep` behind it, at the mean of `keep` over the layers from SITE on."""

    def make(picture: Picture, keep: int) -> PrunePlan:
        less = max(1, round(share * keep))
        more = (keep * (LAYERS - SITE) - less * (LAYERS - layer)) // (layer - SITE)
        return _plan((VLMPrunerPlus(), more, SITE), (attention, less, layer))

    return make


def _before(factor: int) -> Candidate:
    return lambda picture, keep: _plan((VLMPrunerPlus(), factor * keep, None), (VLMPrunerPlus(), keep, SITE))


def _adaptive(picture: Picture, keep: int) -> PrunePlan:
    """Tokens by the variety of the picture, 1 - mean cosine, over its mean on validation scenes."""
    variety = 1 - float(normalise(picture.embeds).mean(0).square().sum())
    return _plan((VLMPrunerPlus(), max(1, min(576, round(keep * variety / _MEAN_VARIETY))), SITE))


_MEAN_VARIETY = 0.137

STEPS: dict[str, Candidate] = {
    "published": named("vlm-pruner"),
    "one by one": named("vlm-pruner", token_batch=1),
    "without distances": named("vlm-pruner", token_batch=1, spatial_weight=0.0),
    "coverage gain": _at_site(VLMPrunerPlus(emphasis=0.0)),
    "emphasis 0.5": named("vlm-pruner-plus"),
}
"""What the preset is made of: each step adds one thing to the one before."""

CANDIDATES: dict[str, Candidate] = {
    "no merging (published)": named("vlm-pruner", merge=False),
    "8 pivots": named("vlm-pruner", pivots=8),
    "least redundant first": _at_site(Variant("growth", spatial=0.5)),
    "least redundant first, sign fix": _at_site(Variant("growth", spatial=0.5, sign_fix=True)),
    "pivots by space": _at_site(Variant("growth", spatial=0.5, pivots="space")),
    "centred": _at_site(Variant("growth", spatial=0.5, centre=True)),
    "centred, distinctive": _at_site(Variant("growth", centre=True, emphasis=1.0)),
    "coverage, no merging": _at_site(VLMPrunerPlus(merge=False)),
    "coverage, same norm": _at_site(Variant(emphasis=0.5, same_norm=True)),
    "coverage, emphasis 1": _at_site(VLMPrunerPlus(emphasis=1.0)),
    "coverage, centred, emphasis 1": _at_site(Variant(centre=True, emphasis=1.0)),
    "coverage, sharp (cosine^4)": _at_site(Variant(emphasis=0.5, sharp=4.0)),
    "coverage, distances 0.5": _at_site(Variant(emphasis=0.5, spatial=0.5)),
    "coverage, gain by distinctiveness": _at_site(Variant(gain=0.5)),
    "coverage, [CLS] attention^0.3": _at_site(Variant(emphasis=0.3, attention=0.3)),
    "coverage before the language model": named("vlm-pruner-plus", layer=0),
    "3 keep before it, keep at layer 2": _before(3),
    "a quarter by last row at layer 5": _later(5, 0.25, LastRow()),
    "3/8 by last row at layer 6": _later(6, 0.375, LastRow()),
    "half by all text at layer 4": _later(4, 0.5, LastRow(whole=True)),
    "budget by variety": _adaptive,
}
"""Single changes that were tried beside the steps."""

RIVALS: dict[str, Candidate] = {
    **{name: named(name) for name in ("divprune", "cen-divprune", "pivoted-qr", "star-pro")},
    "divprune at layer 2": named("divprune", layer=SITE),
}
"""The strongest other methods at a first look, by name as everyone gets them."""
