"""Max-min pivots with one pass over the keys per pivot and no copy of them.

Distances to the first pivot are direct differences. With a and b as seen from it, the others are |a|^2 + |b|^2 - 2ab,
whose rounding grows with the norms. It only proposes: unless the lead of the farthest token is known to exceed that,
the few farthest are compared again by direct differences, and those decide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vlm_pruner.ops.sync import declared_sync, may_read

__all__ = ["farthest_points"]

_PROPOSED = 8  # tokens compared again by direct differences
_ROUNDING = 1e-5  # more than that of a product, relative to the norms of its factors
_CHUNK = {"cpu": 1 << 18}  # elements per temporary: on a CPU, what a second-level cache holds
_CHUNK_ELSEWHERE = 1 << 24
_PLAIN = (1e-10, 1e15)  # L1 norms up to which no square vanishes or overflows in float32


def farthest_points(keys: Sequence[Tensor], count: int) -> Tensor:
    """[B, count] tokens; see `vlm_pruner.ops.pivots.farthest_points`. Reads the keys once per pivot."""
    return torch.stack([_one(k, count) for k in keys])


def _one(keys: Tensor, count: int) -> Tensor:
    norm = _fold(keys, lambda part: part.float().abs().sum(-1).sum(0))  # [n]
    chosen = [norm.argmax()[None]]
    first = _rows(keys, chosen[0])  # [1, heads * head_dim]
    scale = None if _needs_no_scaling(norm.amax()) else first.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
    first = _scaled(first, scale)
    origin = first.view(keys.shape[0], 1, -1)
    square = _fold(keys, lambda part: _square(_scaled(part.float(), scale) - origin))  # [n]
    nearest = square.index_fill(0, chosen[0], -torch.inf)
    while len(chosen) < count:
        leader = _leader(nearest, square, first)
        chosen.append(_farthest(keys, nearest, chosen, scale) if leader is None else leader)
        if len(chosen) < count:
            pivot = _scaled(_rows(keys, chosen[-1]), scale) - first
            dot = _dot(keys, pivot.view_as(origin), scale) - first @ pivot[0]
            apart = torch.sub(square + square.index_select(0, chosen[-1]), dot, alpha=2).clamp_(min=0)
            nearest = nearest.minimum(apart.nan_to_num_(nan=0.0)).index_fill_(0, chosen[-1], -torch.inf)
    return torch.cat(chosen)


def _scaled(keys: Tensor, scale: Tensor | None) -> Tensor:
    return keys if scale is None else keys / scale


def _square(part: Tensor) -> Tensor:
    """[m] squared norm of keys [heads, m, head_dim]."""
    square: Tensor = torch.linalg.vector_norm(part, dim=-1).square_().sum(0)
    return square


def _dot(keys: Tensor, pivot: Tensor, scale: Tensor | None) -> Tensor:
    """[n] product of the keys, in units of `scale`, with `pivot` [heads, 1, head_dim]."""

    def product(part: Tensor) -> Tensor:
        return torch.bmm(pivot, _scaled(part.float(), scale).transpose(1, 2)).sum((0, 1))

    return product(keys) if scale is None and keys.dtype == torch.float32 else _fold(keys, product)


def _leader(nearest: Tensor, square: Tensor, first: Tensor) -> Tensor | None:
    """[1] the token with the largest `nearest`, where it can be read that its lead is more than rounding; else None."""
    if len(nearest) < 2 or not may_read(nearest):
        return None
    top = nearest.topk(2)
    with declared_sync():
        best, second = top.values.tolist()
        reach, norm = float(square.amax()) ** 0.5, float(torch.linalg.vector_norm(first))
        return top.indices[:1] if best - second > _ROUNDING * reach * (reach + norm) else None


def _farthest(keys: Tensor, nearest: Tensor, chosen: list[Tensor], scale: Tensor | None) -> Tensor:
    """[1] of the tokens with the largest `nearest`, the one that direct differences put farthest from `chosen`."""
    far = nearest.topk(min(_PROPOSED, len(nearest))).indices
    proposed = torch.cat([nearest.argmax()[None], far]).sort().values  # ascending: ties go to the lower index
    rows = _scaled(_rows(keys, torch.cat([proposed, *chosen])), scale)
    apart = (rows[: len(proposed), None] - rows[len(proposed) :]).square_().sum(-1).amin(1)
    best = apart.masked_fill_(nearest.index_select(0, proposed) < 0, -1.0).argmax()[None]
    return proposed.index_select(0, best)


def _rows(keys: Tensor, index: Tensor) -> Tensor:
    """[m, heads * head_dim] float32 keys of some tokens."""
    return keys.index_select(1, index).float().transpose(0, 1).flatten(1)


def _fold(keys: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """[n, ...] what `function` makes of the keys, cut along the tokens into parts whose temporaries are small."""
    limit = _CHUNK.get(keys.device.type, _CHUNK_ELSEWHERE)
    parts = torch.split(keys, max(1, limit // (keys.shape[0] * keys.shape[2])), dim=1)
    return torch.cat([function(part) for part in parts])


def _needs_no_scaling(largest: Tensor) -> bool:
    """May squares of keys whose L1 norm is at most `largest` be taken as they are? Unknown where it cannot be read."""
    if not may_read(largest):
        return False
    with declared_sync():
        return _PLAIN[0] < float(largest) < _PLAIN[1]
