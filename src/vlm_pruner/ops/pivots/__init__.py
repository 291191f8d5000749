"""Max-min pivots: the token of largest norm, then again and again the one farthest from those chosen."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vlm_pruner.ops.dispatch import implementation

__all__ = ["farthest_points"]


def farthest_points(keys: Sequence[Tensor], count: int, *, backend: str | None = None) -> Tensor:
    """[B, count] int64 pivots of B images in order of selection, distinct.

    The first is argmax_i ||k_i||_1, the next argmax_i min_j ||k_i - k_j||_2 over the pivots j so far; a key is the
    concatenation of its heads. Ties go to the lower index. arXiv:2512.02700, stage 1.

    Args:
        keys: B tensors [heads, n, head_dim] of one shape, any float dtype; never copied as a whole.
        count: pivots, 1 <= count <= n.
    """
    return implementation("pivots", keys[0], backend).farthest_points(keys, count)  # type: ignore[no-any-return]
