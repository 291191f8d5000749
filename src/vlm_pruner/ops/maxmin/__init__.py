"""Max-min diversity in cosine distance, without the matrix of all distances."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vlm_pruner.ops.dispatch import implementation

__all__ = ["spread"]


def spread(
    features: Sequence[Tensor],
    keep: int,
    *,
    start: int | None = None,
    weight: Sequence[Tensor] | None = None,
    backend: str | None = None,
) -> Tensor:
    """[B, keep] int64 tokens of B images in order of selection, distinct.

    With d_ij = 1 - cosine of rows i and j: first the token that is farthest from its nearest neighbour, then again and
    again the one whose nearest chosen token is farthest. Ties go to the lower index. arXiv:2503.02175, Alg. 1.

    Args:
        features: B tensors [n, d] of one shape, any float dtype. A zero row has cosine 0 with everything.
        keep: 1 <= keep <= n.
        start: the first token of every image, where it is not to be the one farthest from its nearest neighbour.
        weight: B tensors [n], not negative: how many times the distance of a token counts after the first choice.
    """
    module = implementation("maxmin", features[0], backend)
    return module.spread(features, keep, start, weight)  # type: ignore[no-any-return]
