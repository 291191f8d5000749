"""A uniform grid of tokens: what any method that looks at the picture has to beat."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from math import isqrt
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.budget import split_budget
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops import constant
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["GridPrune"]


@final
@dataclass(frozen=True)
class GridPrune(PruningMethod):
    """Tokens on a regular grid in the proportions of the image; frames of a video share the budget evenly.

    Where the tokens have positions of their own (tiles), the budget is spread over them by farthest points in the
    plane, and tokens without a place are taken last.

    Cost: O(keep).
    """

    name: ClassVar[str] = "grid"
    title: ClassVar[str] = "Uniform grid"
    source: ClassVar[str] = "baseline"

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        if tokens.position is not None:
            order = _spread_out(tokens.coordinates(), keep)
            return Selection(index=order.sort().values, order=order)
        tokens.coordinates()  # refuses a grid that does not fit the tokens
        grid = tokens.grid if tokens.grid is not None else (1, 1, len(tokens))
        return Selection(index=constant(grid_points(*grid, keep), torch.int64, tokens.device).clone())


@functools.lru_cache(maxsize=1024)
def grid_points(t: int, h: int, w: int, keep: int) -> tuple[int, ...]:
    """`keep` raster indices of a t x h x w grid, ascending, spread evenly in every direction."""
    if keep < t:
        frames = _evenly(keep, t)
        return tuple(f * h * w + i for f in frames for i in _frame_points(h, w, 1))
    quotas = split_budget([h * w] * t, keep)
    return tuple(f * h * w + i for f, quota in enumerate(quotas) for i in _frame_points(h, w, quota))


def _frame_points(h: int, w: int, keep: int) -> list[int]:
    """The nearest regular grid to `keep` points, then thinned out or filled up evenly to that number."""
    rows = min(h, max(1, isqrt((4 * keep * h) // w) + 1 >> 1))  # round(sqrt(keep * h / w))
    columns = min(w, max(1, (2 * keep + rows) // (2 * rows)))  # round(keep / rows)
    points = [y * w + x for y in _linspace(h, rows) for x in _linspace(w, columns)]
    if len(points) >= keep:
        return [points[i] for i in _evenly(keep, len(points))]
    taken = set(points)
    free = [i for i in range(h * w) if i not in taken]
    return sorted(points + [free[i] for i in _evenly(keep - len(points), len(free))])


def _linspace(length: int, count: int) -> list[int]:
    """`count` distinct places from 0 to length - 1 at equal distances, rounded; one place is the middle."""
    if count == 1:
        return [(length - 1) // 2]
    return [(2 * i * (length - 1) + count - 1) // (2 * (count - 1)) for i in range(count)]


def _evenly(count: int, total: int) -> list[int]:
    """`count` distinct indices below `total`, each in the middle of its share."""
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def _spread_out(place: Tensor, keep: int) -> Tensor:
    """[keep] farthest points of the coordinates [n, 3], from the first token that has a place."""
    nowhere = (place < 0).any(1)
    near = torch.full_like(place[:, 0], torch.inf)  # [n] squared distance to the nearest chosen token
    near = near.masked_fill(nowhere, -1.0)
    chosen = []
    for _ in range(keep):
        chosen.append(near.argmax())
        apart = (place - place.index_select(0, chosen[-1][None])).square().sum(1)
        near = torch.where(nowhere, near, near.minimum(apart)).index_fill_(0, chosen[-1], -torch.inf)
    return torch.stack(chosen)
