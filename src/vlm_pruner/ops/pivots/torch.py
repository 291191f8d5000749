"""Max-min pivots with one pass over the keys per pivot and no copy of them.

Distances come from |a|^2 + |b|^2 - 2ab, whose rounding grows with the norms. It only proposes: the few farthest tokens
are compared again by direct differences, and those decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vlm_pruner.ops.sync import declared_sync, may_read

__all__ = ["farthest_points"]

_PROPOSED = 8  # tokens compared again by direct differences
_CHUNK = {"cpu": 1 << 17}  # elements per temporary: on a CPU, what a second-level cache holds
_CHUNK_ELSEWHERE = 1 << 24


def farthest_points(keys: Sequence[Tensor], count: int) -> Tensor:
    """[B, count] tokens; see `vlm_pruner.ops.pivots.farthest_points`. Keys are read once per pivot."""
    return torch.stack([_one(k, count) for k in keys])


def _one(keys: Tensor, count: int) -> Tensor:
    chosen = [torch.cat([part.float().abs().sum(-1).sum(0) for part in _chunks(keys)]).argmax()]
    if count == 1:
        return torch.stack(chosen)
    scale = _rows(keys, chosen[0][None]).abs().amax().clamp(min=torch.finfo(torch.float32).tiny)  # []
    plain = _needs_no_scaling(keys, scale)
    scale = torch.ones_like(scale) if plain else scale
    parts = [keys] if plain else None

    def scaled() -> Iterator[Tensor]:
        return iter(parts) if parts else (part.float() / scale for part in _chunks(keys))

    square = torch.cat([torch.linalg.vector_norm(part, dim=-1).square_().sum(0) for part in scaled()])  # [n]
    nearest = torch.full_like(square, torch.inf)
    for _ in range(count - 1):
        pivot = (_rows(keys, chosen[-1][None]) / scale).view(keys.shape[0], 1, -1)  # [heads, 1, head_dim]
        dot = torch.cat([torch.bmm(pivot, part.transpose(1, 2)).sum((0, 1)) for part in scaled()])
        apart = torch.sub(square + square.index_select(0, chosen[-1][None]), dot, alpha=2)
        apart.nan_to_num_(nan=0.0).clamp_(min=0)
        nearest = nearest.minimum(apart).index_fill_(0, chosen[-1], -torch.inf)
        chosen.append(_farthest(keys, nearest, chosen, scale))
    return torch.stack(chosen)


def _farthest(keys: Tensor, nearest: Tensor, chosen: list[Tensor], scale: Tensor) -> Tensor:
    """Of the tokens with the largest `nearest`, the one that direct differences put farthest from `chosen`."""
    far = nearest.topk(min(_PROPOSED, len(nearest))).indices
    proposed = torch.cat([nearest.argmax()[None], far]).sort().values  # ascending: ties go to the lower index
    rows = _rows(keys, proposed) / scale
    pivots = _rows(keys, torch.stack(chosen)) / scale
    apart = (rows[:, None] - pivots).square_().sum(-1).amin(1)
    best = apart.masked_fill_(nearest[proposed] < 0, -1.0).argmax()[None]
    return proposed.index_select(0, best)[0]


def _rows(keys: Tensor, index: Tensor) -> Tensor:
    """[m, heads * head_dim] float32 keys of some tokens."""
    return keys.index_select(1, index).float().transpose(0, 1).flatten(1)


def _chunks(keys: Tensor) -> tuple[Tensor, ...]:
    """The keys cut along the tokens into parts whose temporaries are small."""
    limit = _CHUNK.get(keys.device.type, _CHUNK_ELSEWHERE)
    return torch.split(keys, max(1, limit // (keys.shape[0] * keys.shape[2])), dim=1)


def _needs_no_scaling(keys: Tensor, scale: Tensor) -> bool:
    """Float32 keys whose squares neither overflow nor vanish can be read where they lie."""
    if keys.dtype != torch.float32 or not may_read(keys):
        return False
    with declared_sync():
        return 1e-12 < float(scale) < 1e15
