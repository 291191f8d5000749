"""Channel screening in two loops: the variances in one reading of the features, then the channels that stay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vlm_pruner.ops.loops import as_written, compiled, inlined, numbers, value
from vlm_pruner.ops.screen.torch import LEAST, settled, unit_rows
from vlm_pruner.ops.sync import declared_sync

__all__ = ["screen"]

_ROWS = 64  # summed in float32 before float64 takes over
_ROUNDING = (_ROWS + 8) * 2.0**-24  # more than that of such a sum, relatively


def screen(features: Sequence[Tensor], channels: int) -> Tensor:
    """[B, n, q] unit rows; see `vlm_pruner.ops.screen.screen`. Copies the q channels that stay, and no more."""
    n, d = features[0].shape
    out = torch.empty(len(features), n, min(channels, d), dtype=torch.float32, device="cpu")
    for image, unit in zip(features, out, strict=True):
        _one(image, unit)
    return out


def _one(features: Tensor, out: Tensor) -> None:
    if out.shape[1] == features.shape[1]:
        out.copy_(unit_rows(features))
        return
    memory, (stride,) = numbers(features)
    parts = _largest(*_spread(memory, *features.shape, stride), out.shape[1], _ROUNDING, LEAST)
    with declared_sync():
        sure, doubtful = (torch.from_numpy(part) for part in parts)
        channels = settled(features, sure, doubtful, out.shape[1]).numpy()
        _gather(memory, stride, channels, out.numpy())


@compiled
def _largest(spread, square, count, rounding, least):
    """The channels sure to be among the `count` that vary most, and those that may be; both ascending.

    A variance may be off by `rounding` times its mean `square`, and by the `least`.
    """
    edge = np.partition(spread, len(spread) - count)[len(spread) - count]  # of the last that stays, between these two:
    low, high, total = np.inf, -np.inf, 0.0
    for c in range(len(spread)):
        off = rounding * square[c] + least
        low = min(low, spread[c] - off) if spread[c] >= edge else low
        high = max(high, spread[c] + off) if spread[c] <= edge else high
        total += square[c]
    told = total < np.inf  # not where sums overflowed, or there is a NaN
    stays, doubtful = np.empty(len(spread), np.bool_), np.empty(len(spread), np.bool_)
    for c in range(len(spread)):
        off = rounding * square[c] + least
        stays[c] = told and spread[c] - off > high
        doubtful[c] = not told or not (stays[c] or spread[c] + off < low)
    if stays.sum() + doubtful.sum() == count:  # there is no choice
        return np.flatnonzero(stays | doubtful), np.empty(0, np.int64)
    return np.flatnonzero(stays), np.flatnonzero(doubtful)


@compiled
def _spread(rows, n, d, stride):
    """[d] the variance of each channel over n rows, whose first entries are `stride` apart, and [d] its mean square.

    Deviations are from the mean of the first rows, so that a large mean costs no digits. Eight rows are taken at a
    time, since sums are read from the cache and written back each time.
    """
    total, square = np.zeros(d, np.float64), np.zeros(d, np.float64)
    part, part_square = np.empty(d, np.float32), np.empty(d, np.float32)
    middle = np.zeros(d, np.float32)
    first = min(n, _ROWS)
    for i in range(first):
        row = rows[i * stride : i * stride + d]
        for c in range(d):
            middle[c] += value(row[c])
    for c in range(d):
        middle[c] /= np.float32(first)
    for start in range(0, n, _ROWS):
        end = min(n, start + _ROWS)
        part[:] = 0
        part_square[:] = 0
        for i in range(start, end - 7, 8):
            row0, row1 = _row(rows, i, stride, d), _row(rows, i + 1, stride, d)
            row2, row3 = _row(rows, i + 2, stride, d), _row(rows, i + 3, stride, d)
            row4, row5 = _row(rows, i + 4, stride, d), _row(rows, i + 5, stride, d)
            row6, row7 = _row(rows, i + 6, stride, d), _row(rows, i + 7, stride, d)
            for c in range(d):
                x0, x1 = value(row0[c]) - middle[c], value(row1[c]) - middle[c]
                x2, x3 = value(row2[c]) - middle[c], value(row3[c]) - middle[c]
                x4, x5 = value(row4[c]) - middle[c], value(row5[c]) - middle[c]
                x6, x7 = value(row6[c]) - middle[c], value(row7[c]) - middle[c]
                part[c] += ((x0 + x1) + (x2 + x3)) + ((x4 + x5) + (x6 + x7))
                part_square[c] += (x0 * x0 + x1 * x1) + (x2 * x2 + x3 * x3) + (x4 * x4 + x5 * x5) + (x6 * x6 + x7 * x7)
        for i in range(end - (end - start) % 8, end):
            row = rows[i * stride : i * stride + d]
            for c in range(d):
                x = value(row[c]) - middle[c]
                part[c] += x
                part_square[c] += x * x
        for c in range(d):
            total[c] += part[c]
            square[c] += part_square[c]
    for c in range(d):
        square[c] /= n
        total[c] = square[c] - (total[c] / n) ** 2
    return total, square


@inlined
def _row(rows, i, stride, d):
    return rows[i * stride : i * stride + d]


@compiled
def _picked(row, channels, own):
    """Some channels of a row into `own`; the sum of their squares."""
    square = 0.0
    for c in range(len(own)):
        own[c] = value(row[channels[c]])
        square += np.float64(own[c]) * np.float64(own[c])
    return square


@as_written
def _gather(rows, stride, channels, out):
    """Some channels as unit rows on the grid into `out` [n, q]; nothing is left of a row that is not finite."""
    for i in range(len(out)):
        row, own = rows[i * stride : i * stride + channels[-1] + 1], out[i]
        square = _picked(row, channels, own)
        inverse = 1 / np.sqrt(square) if 0 < square < np.inf else 0.0
        for c in range(len(own)):
            own[c] = np.rint(own[c] * inverse * 2.0**26) * 2.0**-26 if inverse > 0 else 0.0
