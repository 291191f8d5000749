"""Block-greedy growth of the kept set from its pivots, from near to far."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vlm_pruner.ops.dispatch import implementation
from vlm_pruner.ops.growth.rule import GrowthRule

__all__ = ["Grown", "GrowthRule", "grow"]


class Grown(NamedTuple):
    """What `grow` returns for B images."""

    order: Tensor  # [B, keep] int64, kept tokens in order of selection; -1 past an early stop (fill=False)
    owner: Tensor  # [B, n] int64, the place in `order` of the kept token most similar to each token
    similarity: Tensor  # [B, n] float32, their cosine


def grow(
    unit: Tensor,
    place: Tensor,
    diagonal: Tensor,
    pivots: Tensor,
    keep: int,
    rule: GrowthRule,
    *,
    backend: str | None = None,
) -> Grown:
    """Grow the kept set S of each of B images from its pivots to `keep` tokens.

    With a_i = max cosine to S and b_i = min distance to S, the redundancy of a token is
    m_i = a_i (1 + spatial_weight * b_i / diagonal). A pass orders the tokens outside S by m (ties: lower index), then
    goes through that order in blocks of `token_batch`: members with m < threshold against the S of that moment enter
    together (the least redundant ones if they are too many). Each pass has the next threshold of the rule.
    arXiv:2512.02700, Alg. 1.

    Args:
        unit: [B, n, q] float32, rows of unit length.
        place: [B, n, 3] float32 coordinates, already in one unit of length; NaN for a token without a place, which is
            near to everything (its factor is 1) and brings nothing nearer.
        diagonal: [B] float32, what distances are divided by.
        pivots: [B, p] int64, distinct, 1 <= p <= keep.
        keep: size of S at the end, at most n.
    """
    module = implementation("growth", unit, backend)
    return module.grow(unit, place, diagonal, pivots, keep, rule)  # type: ignore[no-any-return]
