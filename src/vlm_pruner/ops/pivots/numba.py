"""Max-min pivots as loops over the keys, one for the norms and one for each pivot, that touch no other memory."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlm_pruner.ops.loops import compiled, numbers, slack, value

__all__ = ["farthest_points"]

_VANISHING = 1e-30  # a sum of squares that have vanished


def farthest_points(keys: Sequence[Tensor], count: int) -> Tensor:
    """[B, count] tokens; see `vlm_pruner.ops.pivots.farthest_points`.

    Distances are direct differences in float32; those that may be the largest are computed again in float64, and these
    decide.
    """
    return torch.stack([_one(k, count) for k in keys])


def _one(keys: Tensor, count: int) -> Tensor:
    memory, strides = numbers(keys)
    shape = *keys.shape, *strides
    off = 4 * slack(keys.shape[0] + keys.shape[2])  # all terms are positive: relative to the sum
    norm = _norms(memory, shape)
    doubtful = _doubtful(norm, off)
    chosen = [_largest(doubtful, lambda token: _exact_norm(memory, shape, token))]
    scale = _scale(float(norm.max()))
    nearest = np.full(len(norm), np.inf, np.float32)
    while len(chosen) < count:
        np.fmin(nearest, _apart(memory, shape, chosen[-1], scale), out=nearest)
        nearest[chosen[-1]] = -1.0
        doubtful = _doubtful(nearest, off)
        chosen.append(_largest(doubtful, functools.partial(_exact_nearest, memory, shape, np.array(chosen))))
    return torch.tensor(chosen, device="cpu")


def _doubtful(value: NDArray[Any], off: float) -> NDArray[Any]:
    """The entries that may be the largest, ascending, where each may be `off` by that share of itself."""
    largest = value.max()
    if not largest < np.inf:  # one that overflowed, or a NaN, is not a number to compare with
        return np.flatnonzero(value != -1.0)
    return np.flatnonzero(value >= max(np.float32(0), largest - np.float32(off) * (largest + _VANISHING)))


def _largest(tokens: NDArray[Any], exact: Callable[[int], float]) -> int:
    """The token of the largest exact value, the first of several; without computing one where there is no choice."""
    if len(tokens) == 1:
        return int(tokens[0])
    return int(tokens[np.argmax([exact(token) for token in tokens])])


def _scale(largest: float) -> Any:
    """The power of two that takes the largest norm to about 1, so that no square overflows and few vanish."""
    exponent = np.frexp(min(largest, float(np.finfo(np.float32).max)))[1]
    return np.ldexp(np.float32(1), -max(-126, min(126, int(exponent))))


@compiled
def _norms(keys, shape):
    """[tokens] L1 norms; `shape` is (heads, tokens, width, stride of a head, stride of a token)."""
    heads, tokens, width, to_head, to_token = shape
    norm = np.zeros(tokens, np.float32)
    for h in range(heads):
        for i in range(tokens):
            at = h * to_head + i * to_token
            row = keys[at : at + width]
            total = np.float32(0)
            for c in range(width):
                total += abs(value(row[c]))
            norm[i] += total
    return norm


@compiled
def _apart(keys, shape, pivot, scale):
    """[tokens] squared distances to the pivot, in units of 1 / `scale`."""
    heads, tokens, width, to_head, to_token = shape
    square, own = np.zeros(tokens, np.float32), np.empty(width, np.float32)
    for h in range(heads):
        at = h * to_head + pivot * to_token
        for c in range(width):
            own[c] = value(keys[at + c])
        for i in range(tokens):
            at = h * to_head + i * to_token
            row = keys[at : at + width]
            total = np.float32(0)
            for c in range(width):
                apart = (value(row[c]) - own[c]) * scale
                total += apart * apart
            square[i] += total
    return square


@compiled
def _exact_norm(keys, shape, token):
    """The L1 norm of a token's key in float64."""
    heads, _, width, to_head, to_token = shape
    total = 0.0
    for h in range(heads):
        at = h * to_head + token * to_token
        row = keys[at : at + width]
        for c in range(width):
            total += abs(np.float64(value(row[c])))
    return total


@compiled
def _exact_nearest(keys, shape, chosen, token):
    """The least squared distance of a token to the chosen ones in float64."""
    heads, _, width, to_head, to_token = shape
    least = np.inf
    for pivot in chosen:
        total = 0.0
        for h in range(heads):
            at, own = h * to_head + token * to_token, h * to_head + pivot * to_token
            row, other = keys[at : at + width], keys[own : own + width]
            for c in range(width):
                apart = np.float64(value(row[c])) - np.float64(value(other[c]))
                total += apart * apart
        least = min(least, total)
    return least
