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
    `reached` starts at 0. Ties go to the lower index. At most O(keep n m) time, no memory beyond the [n, m] given.

    Args:
        cover: [B, n, m] float32, how well candidate i covers row r.
        keep: 1 <= keep <= n.
        row_weight: [B, m], not negative; all ones if left out.
        candidate_weight: [B, n], not negative; all ones if left out.
    """
    module = implementation("facility", cover, backend)
    return module.facility(cover, keep, row_weight, candidate_weight)  # type: ignore[no-any-return]
