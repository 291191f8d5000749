"""What a kept set looks like without asking the model: evidence covered, redundancy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlm_pruner.engine import ImageRecord
from vlm_pruner.evaluation.questions import Asked

__all__ = ["coverage", "covered", "redundancy"]


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


def covered(asked: Asked, records: Sequence[ImageRecord]) -> tuple[float | None, float | None]:
    """Shares of the evidence and of all objects that were kept; None where it is not known which token shows what."""
    frames = [record.grid[0] for record in records]
    if asked.regions is None or len(records) != asked.pictures or (not asked.video and max(frames) > 1):
        return None, None
    kept: list[Tensor] = []
    shows: list[tuple[Tensor, Tensor]] = []
    for number, record in enumerate(records):
        t, h, w = record.grid
        frame, y, x = record.position.cpu().round().long().unbind(1)  # [n] each
        cell = (frame.clamp(0, t - 1) * h + y.clamp(0, h - 1)) * w + x.clamp(0, w - 1)  # [n] behind each token
        evidence, objects = (mask.view(-1, t * h * w)[number][cell] for mask in asked.regions((h, w)))
        shows.append((evidence, objects))
        mask = torch.zeros(record.total, dtype=torch.bool)
        mask[torch.arange(record.total) if record.selection is None else record.selection.index.cpu()] = True
        kept.append(mask)
    index = torch.cat(kept).nonzero().flatten()
    found = [coverage(index, torch.cat(masks)) for masks in zip(*shows, strict=True)]
    evidence_kept, objects_kept = (None if share is None else round(share, 4) for share in found)
    return evidence_kept, objects_kept
