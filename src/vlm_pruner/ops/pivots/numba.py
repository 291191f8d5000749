"""Max-min pivots as loops over the keys, one for the norms and one for each pivot, that touch no other memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlm_pruner.ops.loops import compiled, numbers, value

__all__ = ["farthest_points"]


def farthest_points(keys: Sequence[Tensor], count: int) -> Tensor:
    """[B, count] tokens; see `vlm_pruner.ops.pivots.farthest_points`. Distances are direct differences in float32."""
    return torch.stack([_one(k, count) for k in keys])


def _one(keys: Tensor, count: int) -> Tensor:
    memory, strides = numbers(keys)
    shape = *keys.shape, *strides
    norm = _norms(memory, shape)
    chosen, scale = [int(norm.argmax())], _scale(float(norm.max()))
    nearest = np.full(len(norm), np.inf, np.float32)
    while len(chosen) < count:
        np.fmin(nearest, _apart(memory, shape, chosen[-1], scale), out=nearest)
        nearest[chosen[-1]] = -1.0
        chosen.append(int(nearest.argmax()))
    return torch.tensor(chosen, device="cpu")


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
