"""What a kept set looks like without asking the model: evidence covered, redundancy."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["coverage", "redundancy"]


def coverage(kept: Tensor, evidence: Tensor) -> float | None:
    """Share of the evidence tokens that were kept; None if there are none.

    Args:
        kept: [k] indices of the kept tokens.
        evidence: [n] bool, the tokens that show what was asked about.
    """
    total = int(evidence.sum())
    return int(evidence[kept].sum()) / total if total else None


def redundancy(features: Tensor) -> float | None:
    """Mean cosine over all pairs of different rows of [k, d]; None for a single row.

    The sum over pairs is that of |sum of unit rows|^2 less its k diagonal entries: no k x k matrix is made.
    """
    k = features.shape[0]
    if k < 2:
        return None
    rows = torch.nn.functional.normalize(features.double(), dim=-1)  # [k, d]
    total = rows.sum(0).square().sum() - rows.square().sum()
    return float(total) / (k * (k - 1))
