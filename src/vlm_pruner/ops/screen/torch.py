"""Channel screening that reads the features once or twice and copies at most a chunk of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlm_pruner.ops.sync import declared_sync, may_read

__all__ = ["screen", "unit_rows"]

_ROWS = 32  # rows per chunk: 32 x 4096 float32 stay in a second-level cache
_STEADY = 64.0  # mean^2 / variance up to which float32 moments about zero keep 4 digits of the variance


def screen(features: Sequence[Tensor], channels: int) -> Tensor:
    """[B, n, q] unit rows; see `vlm_pruner.ops.screen.screen`. Copies 32 rows at a time, and q channels."""
    return torch.stack([unit_rows(_varying(f, channels)) for f in features])


def unit_rows(rows: Tensor) -> Tensor:
    """[n, q] float32 rows of unit length, written over `rows` (float32); zero rows and NaN become zero.

    Each row is first divided by its largest entry, so that no square overflows or vanishes.
    """
    largest = rows.abs().amax(1, keepdim=True)
    rows /= largest.clamp_(min=torch.finfo(torch.float32).tiny)
    rows /= torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_(min=0.5)
    return rows.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


def _varying(features: Tensor, channels: int) -> Tensor:
    """[n, q] float32, the channels of largest variance in ascending order."""
    if channels >= features.shape[1]:
        return features.to(torch.float32, copy=True)
    best = _spread(features).sort(descending=True, stable=True).indices[:channels]
    return features.index_select(1, best.sort().values).float()


def _spread(features: Tensor) -> Tensor:
    """[d] float32 sum of squares of each channel about its mean.

    Moments about zero cost one multiply-add per element but lose digits where a mean is large against its spread.
    Where values may be read (CPU) only such channels are done again, elsewhere all are shifted at once.
    """
    if features.dtype != torch.float32 or not may_read(features):
        return _shifted_spread(features)
    n = len(features)
    power = features.new_zeros(min(_ROWS, n), features.shape[1])
    for rows in torch.split(features, _ROWS):
        power[: len(rows)].addcmul_(rows, rows)
    offset = (features.new_full((1, n), 1.0 / n) @ features)[0].square_().mul_(n)
    spread = power.sum(0) - offset
    with declared_sync():
        unsteady = (offset > _STEADY * spread).nonzero().flatten()
        if 4 * len(unsteady) > len(spread):
            return _shifted_spread(features)
        if len(unsteady):
            spread[unsteady] = _shifted_spread(features.index_select(1, unsteady))
    return spread


def _shifted_spread(features: Tensor) -> Tensor:
    """The same from moments about the first row."""
    n, d = features.shape
    shift = features[0].float()
    power, total = (torch.zeros(min(_ROWS, n), d, device=features.device) for _ in range(2))
    for chunk in torch.split(features, _ROWS):
        rows = chunk - shift
        power[: len(rows)].addcmul_(rows, rows)
        total[: len(rows)] += rows
    return power.sum(0) - total.sum(0).square() / n
