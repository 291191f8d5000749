"""Channel screening that copies at most a strip of the features, and the channels that stay.

Variances are sums in float32 of which the rounding is known. Channels that it leaves between the last that stays and
the first that goes are measured again in float64, and those numbers decide.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlm_pruner.ops.basic import normalise, together
from vlm_pruner.ops.sync import declared_sync, may_read

__all__ = ["LEAST", "screen", "settled", "unit_rows"]

LEAST = 1e-36
"""What a variance in float32 is off by where squares vanish."""

_COLUMNS = 256  # of features that are not float32, converted at a time
_NUMBERS = 1 << 20  # in float64 at a time
_UNIT = 2.0**-24  # what rounding to float32 may change, relatively


def screen(features: Sequence[Tensor], channels: int) -> Tensor:
    """[B, n, q] unit rows; see `vlm_pruner.ops.screen.screen`. Copies the q channels that stay, and no more."""
    return together([unit_rows(_varying(f, channels)) for f in features])


def unit_rows(rows: Tensor) -> Tensor:
    """[n, q] float32 rows of unit length on the grid; zero rows, and those with a NaN or infinity, become zero."""
    unit = normalise(rows)
    if may_read(unit):
        with declared_sync():
            if bool(unit.sum().isfinite()):
                return unit
    return unit.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


def _varying(features: Tensor, channels: int) -> Tensor:
    """[n, q] float32, the channels of largest variance in ascending order."""
    if channels >= features.shape[1]:
        return features.float()
    if not may_read(features):
        best = _exact(features).sort(descending=True, stable=True).indices[:channels].sort().values
    else:
        with declared_sync():
            best = settled(features, *_largest(*_variance(features), channels), channels)
    return features.index_select(1, best).float()


def _largest(spread: Tensor, rounding: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The channels sure to be among the `count` that vary most, and those that may be; both ascending. On a CPU.

    Args:
        spread: [d] the variance of each channel.
        rounding: [d] how far that may be from the truth.
    """
    least, most = spread - rounding, spread + rounding
    edge = spread.kthvalue(len(spread) - count + 1).values  # of the last that stays, between these two:
    low = least.where(spread >= edge, torch.inf).amin()
    high = most.where(spread <= edge, -torch.inf).amax()
    stays, goes = least > high, most < low
    if not bool(most.sum() < torch.inf):  # sums that overflowed, or a NaN, say nothing
        stays, goes = torch.zeros_like(stays), torch.zeros_like(stays)
    sure, doubtful = (x.nonzero().flatten() for x in (stays, ~(stays | goes)))
    return sure, doubtful


def settled(features: Tensor, sure: Tensor, doubtful: Tensor, count: int) -> Tensor:
    """[count] channels, ascending: the `sure` ones and the best of the `doubtful`, which are measured again."""
    room = count - len(sure)
    if not len(doubtful):
        return sure
    if len(doubtful) > room:
        exact = torch.cat([_exact(features.index_select(1, part)) for part in _strips(features, doubtful)])
        doubtful = doubtful[exact.sort(descending=True, stable=True).indices[:room]]
    return torch.cat([sure, doubtful]).sort().values


def _strips(features: Tensor, channels: Tensor) -> tuple[Tensor, ...]:
    return torch.split(channels, max(1, _NUMBERS // len(features)))


def _exact(features: Tensor) -> Tensor:
    """[d] float64: n times the variance of each channel, exactly zero where none varies."""
    spread = []
    for part in torch.split(features, max(1, _NUMBERS // len(features)), dim=1):
        rows = part.float().double()
        apart = (rows - rows[0]).T.contiguous()  # added up channel by channel, each in the same way
        spread.append(apart.square().sum(1) - apart.sum(1).square() / len(rows))
    return torch.cat(spread)


def _variance(features: Tensor) -> tuple[Tensor, Tensor]:
    """[d] float32 variance of each channel about its mean, and [d] what rounding may have changed it by."""
    # The statistics of batch normalisation are the one vectorised variance over rows that a CPU has.
    parts = [features] if features.dtype == torch.float32 else torch.split(features, _COLUMNS, dim=1)
    stats = [torch.batch_norm_update_stats(part.float(), None, None, 0.0) for part in parts]
    mean, variance = (torch.cat([s[i] for s in stats]) for i in (0, 1))
    step = _UNIT * (len(features) + 8)  # of sums of so many terms
    return variance, 2 * step * variance + (step * (mean.abs() + variance.sqrt())).square() + LEAST
