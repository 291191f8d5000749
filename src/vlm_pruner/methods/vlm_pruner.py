"""VLM-Pruner: pivots in key space, growth from near to far, dropped tokens folded into survivors."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.budget import Budget
from vlm_pruner.errors import PlanError
from vlm_pruner.methods.base import PruningMethod, refuse_what_is_not_finite, require, select_alike
from vlm_pruner.ops import GrowthRule, declared_sync, farthest_points, grow, merge, screen
from vlm_pruner.ops.basic import normalise, together
from vlm_pruner.ops.sync import may_read
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["VLMPruner", "directions"]


@final
@dataclass(frozen=True)
class VLMPruner(PruningMethod):
    """Centrifugal token selection with buffering for spatial sparsity, then similarity-weighted aggregation.

    Args:
        pivots: tokens that the growth starts from, mutually distant in the key space of the layer before, if any.
        channels: feature channels of largest variance in which similarity is measured.
        spatial_weight: how much a distance of one grid diagonal to the kept tokens inflates a similarity.
        threshold: modulated similarity below which a token enters in the first pass.
        threshold_step: what the threshold rises by from pass to pass.
        token_batch: tokens judged together, against the kept set but not against one another.
        self_weight: share of a survivor's own row when dropped tokens are folded into it.
        merge: fold dropped tokens into the survivors; without it survivors keep their rows.
        fill: raise the threshold until the budget is met; False stops after a pass that adds nothing, as the released
            code does, and may then return fewer tokens.
        temporal_scale: distance between consecutive frames of a video in units of one token's width.

    Deviates from the released code: arithmetic is float32 whatever the dtype; ties go to the lower index; fewer tokens
    than `pivots` can be asked for; the grid is the true one. A token without a place (newlines) counts as near to
    every token and brings nothing nearer, so similarity alone decides about it. Before the language model (`layer=0`),
    where no layer has made keys, pivots are mutually distant among the centred features at unit length ("feature
    pivots"): nothing but the projector's output is read. docs/offline_benchmark_details.md compares the two.

    Cost: O(n keep channels), and O(n d pivots).

    Raises:
        PlanError: a parameter outside its range.
    """

    name: ClassVar[str] = "vlm-pruner"
    title: ClassVar[str] = "VLM-Pruner"
    source: ClassVar[str] = "arXiv:2512.02700, Alg. 1"
    wants: ClassVar[frozenset[Signal]] = frozenset({Signal.KEYS})
    default_layer: ClassVar[int | None] = 2
    looks_itself: ClassVar[bool] = True

    pivots: int = 4
    channels: int = 256
    spatial_weight: float = 0.5
    threshold: float = 0.8
    threshold_step: float = 0.1
    token_batch: int = 16
    self_weight: float = 0.3
    merge: bool = True
    fill: bool = True
    temporal_scale: float = 1.0

    def __post_init__(self) -> None:
        for field in ("pivots", "channels"):
            if getattr(self, field) < 1:
                raise PlanError(f"{field}={getattr(self, field)} must be at least 1")
        if not 0 <= self.self_weight <= 1:
            raise PlanError(f"self_weight={self.self_weight} must lie in [0, 1]")
        if not self.temporal_scale >= 0:
            raise PlanError(f"temporal_scale={self.temporal_scale} must be >= 0")
        self._rule()

    def needs_at(self, site: int) -> frozenset[Signal]:
        return self.wants if site else self.needs

    @property
    def budget(self) -> Budget:
        return "fixed" if self.fill else "ceiling"

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        return self._select_equal([tokens], keep)[0]

    def select_batch(self, tokens: Sequence[VisualTokens], keep: Sequence[int]) -> list[Selection]:
        """Images of equal shape and budget go through the ops together."""
        return select_alike(tokens, keep, _traits, self._select_equal)

    def _rule(self) -> GrowthRule:
        return GrowthRule(self.spatial_weight, self.threshold, self.threshold_step, self.token_batch, self.fill)

    def select_from(self, tokens: VisualTokens, pivots: Tensor, keep: int) -> Selection:
        """A growth from other pivots than its own: [p] int64, distinct, at most `keep` of them."""
        return self._grown([tokens], pivots[None], keep)[0]

    def _select_equal(self, tokens: Sequence[VisualTokens], keep: int) -> list[Selection]:
        """Selections of images that agree in shape, dtype and device."""
        pivots = farthest_points([_pivot_space(self, t) for t in tokens], min(self.pivots, keep))  # [B, p]
        return self._grown(tokens, pivots, keep)

    def _grown(self, tokens: Sequence[VisualTokens], pivots: Tensor, keep: int) -> list[Selection]:
        features = [t.features for t in tokens]
        place, diagonal = zip(*(geometry(t, self.temporal_scale) for t in tokens), strict=True)
        where = together(place), together(diagonal)
        # The screened features have no name here, so that their memory is free again before rows are merged.
        grown = grow(screen(features, self.channels), *where, pivots, keep, self._rule())
        _look_for_what_is_not_finite(self, tokens, pivots, grown.similarity)
        if self.fill:
            return self._finish(features, *grown)
        with declared_sync():  # the count depends on the data: image by image
            counts = (grown.order >= 0).sum(1).tolist()
        parts = zip(features, grown.order, grown.owner, grown.similarity, counts, strict=True)
        return [self._finish([f], o[None, :count], w[None], s[None])[0] for f, o, w, s, count in parts]

    def _finish(self, features: list[Tensor], order: Tensor, owner: Tensor, similarity: Tensor) -> list[Selection]:
        """Sort the kept tokens `order` [B, k] and fold the others into their owners."""
        index, position = order.sort(1)
        slot = position.argsort(1)  # [B, k] place in `index` of each place in `order`
        source = slot.gather(1, owner).scatter_(1, order, slot)  # [B, n]; a kept token represents itself
        merged: list[Tensor | None] = [None] * len(features)
        if self.merge:
            merged[:] = merge(features, index, source, similarity, self.self_weight)
        return [Selection(*parts) for parts in zip(index, order, merged, source, strict=True)]


def directions(rows: Tensor) -> Tensor:
    """[n, d] float32 of unit length: where each of the rows [n, d] lies from their mean."""
    exact = rows.double()
    return normalise((exact - exact.mean(0)).float())


def _pivot_space(method: VLMPruner, tokens: VisualTokens) -> Tensor:
    """[heads, n, c] in which pivots are mutually distant: keys, or directions of features where no layer made any."""
    if tokens.keys is None and not tokens.layer:
        return directions(tokens.features)[None]
    require(method, tokens, Signal.KEYS)
    assert tokens.keys is not None
    return tokens.keys


def _look_for_what_is_not_finite(
    method: VLMPruner, tokens: Sequence[VisualTokens], pivots: Tensor, cosine: Tensor
) -> None:
    """Raise if features or keys hold a NaN or an infinity: on a CPU, and looking only where their traces are.

    Its channel has a variance that is NaN, so it stays, and nothing is left of its row: a cosine of exactly 0. The key
    of largest norm, which is the first pivot, is the one that holds it.
    """
    if not may_read(cosine):
        return
    with declared_sync():
        firsts = [t.keys[:, int(p[0])] for t, p in zip(tokens, pivots, strict=True) if t.keys is not None]
        sums = [float(key.sum(dtype=torch.float32)) for key in firsts]
        if not float(cosine.abs().amin()) > 0 or not all(map(math.isfinite, sums)):
            refuse_what_is_not_finite(method, tokens)


def _traits(tokens: VisualTokens) -> tuple[object, ...]:
    """What images that go through the ops together agree in."""
    keys = None if tokens.keys is None else tokens.keys.shape
    return _is_flat(tokens), tokens.features.shape, tokens.features.dtype, keys, tokens.device


def _is_flat(tokens: VisualTokens) -> bool:
    """Is this a still image, so that two coordinates place a token?"""
    return tokens.position is None and (tokens.grid is None or tokens.grid[0] == 1)


def geometry(tokens: VisualTokens, temporal_scale: float) -> tuple[Tensor, Tensor]:
    """([n, 2 or 3] coordinates in token widths, [] the diagonal of the image or video that they lie in).

    The diagonal is that of the grid, sqrt(h^2 + w^2), and of a video sqrt(h^2 + w^2 + (temporal_scale (t - 1))^2).
    Given positions span a box of their own: h and w reach one token beyond the largest. Tokens without a place are NaN.
    """
    if tokens.position is None:
        return _raster(tokens.grid, len(tokens), temporal_scale, tokens.device)
    place = tokens.coordinates()  # [n, 3]
    place = _scaled(place.masked_fill((place < 0).any(1, keepdim=True), torch.nan), temporal_scale)
    last = place.nan_to_num(nan=0.0).amax(0)
    return place, (last[0].square() + (last[1] + 1).square() + (last[2] + 1).square()).sqrt()


@functools.lru_cache(maxsize=64)
def _raster(
    grid: tuple[int, int, int] | None, n: int, temporal_scale: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """`geometry` of a full grid, the same for every image of its size; never written to."""
    place = VisualTokens(torch.empty(n, 0, device=device), grid=grid).coordinates()
    t, h, w = grid if grid is not None else (1, 1, n)
    diagonal = torch.full((), math.hypot(h, w, temporal_scale * (t - 1)), dtype=torch.float32, device=device)
    return (place[:, 1:].contiguous() if t == 1 else _scaled(place, temporal_scale)), diagonal


def _scaled(place: Tensor, temporal_scale: float) -> Tensor:
    frame, y, x = place.unbind(1)
    return torch.stack([frame * temporal_scale, y, x], 1)
