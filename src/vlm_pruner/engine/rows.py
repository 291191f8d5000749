"""Kept rows: which places of a chunk are still there, and moving tensors along."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Kept", "gather_rows"]


@dataclass(frozen=True)
class Kept:
    """The survivors of a chunk of q places, in every row of the batch, left-padded to the longest row."""

    mask: Tensor  # [b, q] bool, True = still there
    index: Tensor  # [b, k] place of every physical column, ascending; padding columns point at place 0
    valid: Tensor | None  # [b, k] bool, False = padding; None where all rows are equally long

    @classmethod
    def of(cls, mask: Tensor, lengths: list[int]) -> Kept:
        """From a mask whose row sums are known on the host, so that nothing has to be asked of the device."""
        width = mask.shape[1]
        place = torch.arange(width, device=mask.device)
        ranked = torch.where(mask, place, -1).sort(1).values[:, width - max(lengths) :]  # [b, k]
        ragged = min(lengths) != max(lengths)
        return cls(mask, ranked.clamp(min=0), ranked >= 0 if ragged else None)

    @property
    def columns(self) -> Tensor:
        """[b, q] physical column of every place; only meaningful where the mask is True, else some column."""
        right_aligned = self.mask.cumsum(1) - self.mask.sum(1, keepdim=True)
        return (right_aligned + (self.index.shape[1] - 1)).clamp(min=0)


def gather_rows(rows: Tensor, index: Tensor) -> Tensor:
    """[b or 1, q, ...] rows at index [b, k] -> [b, k, ...]."""
    index = index.to(rows.device)
    if index.shape[0] == 1 and rows.shape[0] == 1:
        return rows.index_select(1, index[0])
    rows = rows.expand(index.shape[0], *rows.shape[1:])
    shape = (*index.shape, *rows.shape[2:])
    return rows.gather(1, index.reshape(*index.shape, *[1] * (rows.dim() - 2)).expand(shape))
