"""Channel screening that copies at most a strip of the features, and the channels that stay."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlm_pruner.ops.basic import PLAIN, together
from vlm_pruner.ops.sync import declared_sync, may_read

__all__ = ["largest", "screen", "unit_rows"]

_COLUMNS = 256  # of features that are not float32, converted at a time


def screen(features: Sequence[Tensor], channels: int) -> Tensor:
    """[B, n, q] unit rows; see `vlm_pruner.ops.screen.screen`. Copies the q channels that stay, and no more."""
    return together([unit_rows(_varying(f, channels)) for f in features])


def unit_rows(rows: Tensor) -> Tensor:
    """[n, q] float32 rows of unit length, written over `rows` (float32); zero rows and NaN become zero.

    Unless the lengths are known to be harmless, each row is first divided by its largest entry, so that no square
    overflows or vanishes.
    """
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    if may_read(rows):
        with declared_sync():
            shortest, longest = length.aminmax()
            if PLAIN[0] < float(shortest) and float(longest) < PLAIN[1]:  # false if one is NaN
                return rows.div_(length)
    largest = rows.abs().amax(1, keepdim=True)
    rows /= largest.clamp_(min=torch.finfo(torch.float32).tiny)
    rows /= torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_(min=0.5)
    return rows.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


def _varying(features: Tensor, channels: int) -> Tensor:
    """[n, q] float32, the channels of largest variance in ascending order."""
    if channels >= features.shape[1]:
        return features.to(torch.float32, copy=True)
    return features.index_select(1, largest(_variance(features), channels)).float()


def largest(score: Tensor, count: int) -> Tensor:
    """[count] the largest entries of `score`, ascending by index; ties go to the lower one."""
    if may_read(score):
        with declared_sync():
            found = (score >= score.kthvalue(len(score) - count + 1).values).nonzero().flatten()
            if len(found) == count:  # no tie at the edge
                return found
    return score.sort(descending=True, stable=True).indices[:count].sort().values


def _variance(features: Tensor) -> Tensor:
    """[d] float32 variance of each channel, about its mean."""
    if features.device.type != "cpu":
        return torch.cat([part.float().var(0, correction=0) for part in torch.split(features, _COLUMNS, dim=1)])
    # The statistics of batch normalisation are the one vectorised variance over rows that a CPU has.
    if features.dtype == torch.float32:
        return torch.batch_norm_update_stats(features, None, None, 0.0)[1]
    parts = torch.split(features, _COLUMNS, dim=1)
    return torch.cat([torch.batch_norm_update_stats(part.float(), None, None, 0.0)[1] for part in parts])
