"""Similarity-weighted aggregation: dropped tokens are folded into the kept token that is most similar to them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, dtype, float16, nan

from vlm_pruner.ops.dispatch import implementation

__all__ = ["held", "merge"]


def merge(
    features: Sequence[Tensor],
    index: Tensor,
    source: Tensor,
    weight: Tensor,
    self_weight: float,
    *,
    backend: str | None = None,
) -> list[Tensor]:
    """B tensors [k, d], the kept rows after merging, in the dtype of `features`.

    With s_j the summed weight of the dropped tokens u of slot j and E_j = sum_u w_u V_u / max(s_j, 1e-8), a kept row
    becomes self_weight * V_j + (1 - self_weight) * E_j if s_j > 0 and stays as it is otherwise. Sums in float32, which
    may be more than float16 holds (see `held`): weights of both signs may nearly cancel out. arXiv:2512.02700, stage 3.

    Args:
        features: B tensors [n, d] of one shape, any float dtype; never copied as a whole.
        index: [B, k] int64 kept tokens.
        source: [B, n] int64 slot of each token; a kept token's own slot.
        weight: [B, n] float32 weight of each dropped token; what it says for kept ones is ignored.
        self_weight: share of the kept row itself.
    """
    module = implementation("merge", features[0], backend)
    made: list[Tensor] = module.merge(features, index, source, weight, self_weight)
    return [held(rows, rows.dtype) for rows in made]


def held(rows: Tensor, kind: dtype) -> Tensor:
    """`rows` in that dtype; what float16 cannot hold becomes its largest number, not an infinity."""
    rows = rows.to(kind)
    return rows.nan_to_num(nan=nan) if kind == float16 else rows
