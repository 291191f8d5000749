"""Greedy maximum a posteriori of a determinantal point process, without its kernel."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vlm_pruner.ops.dispatch import implementation

__all__ = ["LEAST", "dpp"]

LEAST = 1e-10
"""Share of the largest entry of the diagonal up to which a token adds no volume: it comes last, in order of index."""


def dpp(rows: Sequence[Tensor], weight: Sequence[Tensor], keep: int, *, backend: str | None = None) -> Tensor:
    """[B, keep] int64 tokens of B images in order of selection, each of which adds most volume to those before it.

    The kernel of an image is diag(w) R R^T diag(w); its determinant over the chosen tokens is what grows. All is
    computed in float64. Ties go to the lower index, and so does what adds no volume. Chen et al., "Fast greedy MAP
    inference for determinantal point process", arXiv:1709.05135, Alg. 1.

    Args:
        rows: B tensors R [n, d] of one shape, any float dtype.
        weight: B tensors w [n].
        keep: 1 <= keep <= n.
    """
    return implementation("dpp", rows[0], backend).dpp(rows, weight, keep)  # type: ignore[no-any-return]
