"""Pieces in float64 for choices that must not depend on how a processor rounds.

Products of float32 values are exact in float64, and so are short sums of them: what is left of rounding lies far below
any difference that a picture makes, and tokens that are equal stay equal.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["first_best", "mean_of_heads", "unit_rows"]

_ALIKE = 1e-12  # scores that are no further apart are the same one, rounded differently


def first_best(score: Tensor) -> Tensor:
    """[1] the lowest index whose float64 `score` [n] is the largest, up to rounding; scores are of the order of 1."""
    best = score.max()
    return (score >= best - _ALIKE * best.abs().clamp_min(1)).int().argmax().view(1)


def unit_rows(x: Tensor) -> Tensor:
    """Rows of `x` [..., d] at unit length in float64; a zero row stays zero."""
    x = x.double()
    x = x / x.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    unit: Tensor = x / x.norm(dim=-1, keepdim=True).clamp_min(0.5)  # a row whose largest entry is 1 is no shorter
    return unit


def mean_of_heads(attention: Tensor) -> Tensor:
    """[..., n] float64 mean of `attention` [heads, ..., n], alike for equal tokens."""
    return attention.double().mean(0)
