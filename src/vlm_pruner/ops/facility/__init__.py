"""Weighted facility location: greedily pick candidates that cover rows best."""

from __future__ import annotations

from torch import Tensor

from vlm_pruner.ops.dispatch import implementation

__all__ = ["facility"]


def facility(
    cover: Tensor,
    keep: int,
    row_weight: Tensor | None = None,
    candidate_weight: Tensor | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """[B, keep] int64 candidates of B images in order of selection, each adding most to the coverage of all rows.

    The gain of candidate i is `candidate_weight[i] * sum_r row_weight[r] * max(0, cover[i, r] - reached[r])`, where
    `reached` starts at 0; sums are float64. Ties go to the lower index. O(keep n m) time at most.

    Args:
        cover: [B, n, m] float32, how well candidate i covers row r.
        keep: 1 <= keep <= n.
        row_weight: [B, m], not negative; all ones if left out.
        candidate_weight: [B, n], not negative; all ones if left out.
    """
    batch, n, m = cover.shape
    rows = cover.new_ones(batch, m) if row_weight is None else row_weight
    candidates = cover.new_ones(batch, n) if candidate_weight is None else candidate_weight
    return implementation("facility", cover, backend).facility(cover, keep, rows, candidates)  # type: ignore[no-any-return]
