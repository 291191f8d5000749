"""The definition of max-min diversity, with the full matrix in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["spread"]


def spread(features: Sequence[Tensor], keep: int) -> Tensor:
    """[B, keep] tokens; see `vlm_pruner.ops.maxmin.spread`. Holds all [n, n] cosines of an image."""
    return torch.stack([_one(f, keep) for f in features])


def _one(features: Tensor, keep: int) -> Tensor:
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    cosine = unit @ unit.T  # [n, n]
    cosine = cosine.maximum(cosine.T)  # its roundings must not decide between two tokens nearest to each other
    closest = cosine.clone().fill_diagonal_(-torch.inf).amax(1)  # [n] cosine of the nearest neighbour
    chosen = [closest.argmin()]
    covered = torch.full_like(closest, -torch.inf)  # [n] largest cosine to a chosen token
    while len(chosen) < keep:
        covered = covered.maximum(cosine[chosen[-1]])
        covered[chosen[-1]] = torch.inf
        chosen.append(covered.argmin())
    return torch.stack(chosen)
