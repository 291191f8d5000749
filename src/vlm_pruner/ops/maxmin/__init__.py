"""Max-min diversity in cosine distance, without the matrix of all distances."""

from __future__ import annotations

from torch import Tensor

from vlm_pruner.ops.dispatch import implementation

__all__ = ["spread"]


def spread(features: Tensor, keep: int, *, backend: str | None = None) -> Tensor:
    """[keep] int64 tokens in order of selection, distinct.

    With d_ij = 1 - cosine of rows i and j: first the token that is farthest from its nearest neighbour, then again and
    again the one whose nearest chosen token is farthest. Ties go to the lower index. arXiv:2503.02175, Alg. 1.

    Args:
        features: [n, d], any float dtype. A zero row has cosine 0 with everything.
        keep: 1 <= keep <= n.
    """
    return implementation("maxmin", features, backend).spread(features, keep)  # type: ignore[no-any-return]
