"""Max-min pivots with one pass over the keys per pivot and no copy of them.

Distances to the first pivot are direct differences. With a and b as seen from it, the others are |a|^2 + |b|^2 - 2ab,
whose rounding grows with the norms. It only proposes: unless the lead of the farthest token is known to exceed that,
the few farthest are compared again by direct differences, and those decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vlm_pruner.ops.sync import declared_sync, may_read

__all__ = ["farthest_points"]

_PROPOSED = 8  # tokens compared again by direct differences
_ROUNDING = 1e-5  # more than that of a product, relative to the norms of its factors
_CHUNK = {"cpu": 1 << 19}  # elements per temporary: on a CPU, what caches hold; fewer would be more calls
_CHUNK_ELSEWHERE = 1 << 24
_PLAIN = (1e-10, 1e15)  # L1 norms up to which no square vanishes or overflows in float32


def farthest_points(keys: Sequence[Tensor], count: int) -> Tensor:
    """[B, count] tokens; see `vlm_pruner.ops.pivots.farthest_points`. Reads the keys once per pivot."""
    return torch.stack([_one(k, count) for k in keys])


def _one(keys: Tensor, count: int) -> Tensor:
    norm = _fold(keys, keys[:, :1], None, lambda part, _, spare: torch.abs(part, out=spare).sum(-1).sum(0))  # [n]
    chosen = [norm.argmax()[None]]
    first = _rows(keys, chosen[0])  # [1, heads * head_dim]
    scale = None if _needs_no_scaling(norm.amax()) else first.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
    first = _scaled(first, scale)
    square = _fold(keys, _by_head(first, keys), scale, _apart)  # [n]
    nearest = square.index_fill(0, chosen[0], -torch.inf)
    rounding = _rounding(square, first) if count > 1 else None
    while len(chosen) < count:
        leader = _leader(nearest, rounding)
        chosen.append(_farthest(keys, nearest, chosen, scale) if leader is None else leader)
        if len(chosen) < count:
            pivot = _scaled(_rows(keys, chosen[-1]), scale) - first
            dot = _fold(keys, _by_head(pivot, keys), scale, _product)
            apart = torch.sub(square + square.index_select(0, chosen[-1]), dot - first @ pivot[0], alpha=2).clamp_(
                min=0
            )
            nearest = nearest.minimum(apart.nan_to_num_(nan=0.0)).index_fill_(0, chosen[-1], -torch.inf)
    return torch.cat(chosen)


def _by_head(row: Tensor, keys: Tensor) -> Tensor:
    """[heads, 1, head_dim] of [1, heads * head_dim]."""
    return row.view(keys.shape[0], 1, -1)


def _scaled(keys: Tensor, scale: Tensor | None) -> Tensor:
    return keys if scale is None else keys / scale


def _apart(part: Tensor, row: Tensor, spare: Tensor) -> Tensor:
    """[m] squared distance of keys [heads, m, head_dim] to one of them [heads, 1, head_dim]."""
    apart: Tensor = torch.linalg.vector_norm(torch.sub(part, row, out=spare), dim=-1).square_().sum(0)
    return apart


def _product(part: Tensor, row: Tensor, _: Tensor) -> Tensor:
    """[m] product of keys [heads, m, head_dim] with one of them [heads, 1, head_dim]."""
    return torch.bmm(part, row.transpose(1, 2)).sum((0, 2))  # the other way round runs at half the speed of memory


def _rounding(square: Tensor, first: Tensor) -> float | None:
    """What a difference of two entries of `nearest` may be by rounding alone; None where it cannot be read."""
    if len(square) < 2 or not may_read(square):
        return None
    with declared_sync():
        reach, norm = math.sqrt(float(square.amax())), float(torch.linalg.vector_norm(first))
        return _ROUNDING * reach * (reach + norm)


def _leader(nearest: Tensor, rounding: float | None) -> Tensor | None:
    """[1] the token with the largest `nearest` where its lead is known to be more than rounding, else None."""
    if rounding is None:
        return None
    top = nearest.topk(2)
    with declared_sync():
        best, second = top.values.tolist()
        return top.indices[:1] if best - second > rounding else None


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


def _fold(
    keys: Tensor, row: Tensor, scale: Tensor | None, function: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    """[n] sum over heads of what `function` makes of the scaled keys in float32 and of `row` [heads, 1, head_dim].

    The keys are cut into parts whose temporaries are small: heads if that is enough, else tokens as well. All parts
    have one temporary, which `function` may overwrite: fresh memory costs more than the arithmetic.
    """
    limit = _CHUNK.get(keys.device.type, _CHUNK_ELSEWHERE)
    tokens = max(1, min(keys.shape[1], limit // keys.shape[2]))
    heads = max(1, min(keys.shape[0], limit // (tokens * keys.shape[2])))
    memory = row.new_empty(heads * tokens * keys.shape[2], dtype=torch.float32)
    strips = []
    for strip in torch.split(keys, tokens, dim=1):
        sums = []
        for part, own in zip(torch.split(strip, heads), torch.split(row, heads), strict=True):
            spare = memory[: part.numel()].view(part.shape)
            if part.dtype != torch.float32:
                part = spare.copy_(part)
            if scale is not None:
                part = torch.div(part, scale, out=spare)
            sums.append(function(part, own, spare))
        strips.append(torch.stack(sums).sum(0))
    return torch.cat(strips)


def _needs_no_scaling(largest: Tensor) -> bool:
    """May squares of keys whose L1 norm is at most `largest` be taken as they are? Unknown where it cannot be read."""
    if not may_read(largest):
        return False
    with declared_sync():
        return _PLAIN[0] < float(largest) < _PLAIN[1]
