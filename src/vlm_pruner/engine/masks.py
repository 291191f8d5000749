"""The mask rule: what a query may see does not change because other rows went away.

Every stored entry has a place in the unpruned sequence (0 = padding, else place + 1). The mask that the model built for
the unpruned sequence is read at those places: `pruned[b, q, j] = mask[b, kept_q, place(j) - offset]`, and False where
the entry is padding or has left the window. One rule, all forms of mask that transformers hands to a decoder layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from vlm_pruner.engine.rows import Kept
from vlm_pruner.errors import UnsupportedModelError

__all__ = ["Places", "remap_mask", "visible_rows"]


@dataclass(frozen=True)
class Places:
    """Which places (+ 1; 0 = padding) the queries and the stored keys of a layer have in the unpruned sequence."""

    query: Tensor  # [b, q]
    key: Tensor  # [b, k]
    offset: int | Tensor = 0  # place of column 0 of the mask (sliding layers)
    first: int = 0  # so many first places have columns of their own in front of those

    def columns(self) -> Tensor:
        """[b, k] column of the mask of every key; negative where it has none."""
        place = self.key - 1
        column = place - self.offset
        return (
            torch.where(place < self.first, place, torch.where(column < self.first, -1, column))
            if self.first
            else column
        )


def remap_mask(
    mask: Any, places: Places, kept: Kept | None, ragged: bool, causal: bool, like: Tensor, backend: str
) -> Any:
    """The mask of the unpruned sequence, read at the places that are still there.

    Args:
        mask: None, [b, n] (flash), [b, 1, q, n] bool (sdpa) or float (eager), or a BlockMask (flex).
        kept: surviving queries of this chunk; None if all of them are there.
        ragged: some stored entry is padding.
        causal: what a missing mask means (PaliGemma: bidirectional).
        like: hidden states, for the dtype of a float mask.

    Raises:
        UnsupportedModelError: another kind of mask.
    """
    if mask is None:
        return _from_places(places, causal, like, backend) if ragged else None
    if isinstance(mask, BlockMask):
        return _remap_block(mask, places, kept)
    if not isinstance(mask, Tensor) or mask.dim() not in (2, 4):
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise UnsupportedModelError(
            f"attention mask {shape}: known are [batch, keys], [batch, 1, queries, keys] and BlockMask"
        )
    key = places.key.to(mask.device)
    column = places.columns().to(mask.device)
    inside = (key > 0) & (column >= 0) & (column < mask.shape[-1])  # [b, k]
    column = column.clamp(0, mask.shape[-1] - 1)
    mask = mask.expand(column.shape[0], *mask.shape[1:])
    if mask.dim() == 2:
        return mask.gather(1, column) * inside
    if kept is not None:
        row = kept.index.to(mask.device)[:, None, :, None]
        mask = mask.gather(2, row.expand(-1, mask.shape[1], -1, mask.shape[3]))
    mask = mask.gather(3, column[:, None, None, :].expand(-1, mask.shape[1], mask.shape[2], -1))
    inside = inside[:, None, None, :]
    return mask & inside if mask.dtype == torch.bool else mask.masked_fill(~inside, torch.finfo(mask.dtype).min)


def _from_places(places: Places, causal: bool, like: Tensor, backend: str) -> Tensor:
    """Rows of different lengths need a mask although the unpruned batch did without."""
    real = places.key > 0
    if "flash" in backend:
        return real
    allowed = real[:, None, None, :]
    if causal:
        allowed = allowed & (places.key[:, None, None, :] <= places.query[:, None, :, None])
    else:
        allowed = allowed.expand(-1, -1, places.query.shape[1], -1)
    if backend == "sdpa":
        return allowed
    return torch.zeros_like(allowed, dtype=like.dtype).masked_fill(~allowed, torch.finfo(like.dtype).min)


def _remap_block(mask: BlockMask, places: Places, kept: Kept | None) -> BlockMask:
    rule, key = mask.mask_mod, places.key
    batch, queries = places.query.shape
    row = torch.arange(queries, device=key.device).expand(batch, -1) if kept is None else kept.index
    column = (key - 1 - places.offset).clamp(min=0)
    inside = (key > 0) & (key > places.offset)

    def pruned(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return inside[b, k] & rule(b, h, row[b, q], column[b, k])

    return create_block_mask(pruned, B=batch, H=None, Q_LEN=queries, KV_LEN=key.shape[1], device=key.device)


def visible_rows(mask: Any, row: int, queries: Tensor, keys: int, chunk: int, past: int | None, causal: bool) -> Tensor:
    """Additive float32 mask [t, k] of some query rows, whatever form the layer's mask has.

    Args:
        row: batch row.
        queries: [t] columns of the chunk.
        keys: k, the number of keys that the layer attends to.
        chunk: number of queries of the chunk.
        past: entries that stood in the cache before it; None = all keys but the chunk's own.
    """
    column = torch.arange(keys, device=queries.device)
    if isinstance(mask, BlockMask):
        b, h = queries.new_full((), row), queries.new_zeros(())
        allowed = mask.mask_mod(b, h, queries[:, None], column[None])
    elif isinstance(mask, Tensor) and mask.dim() == 4:
        rows = mask[row % mask.shape[0], 0, queries.to(mask.device), :keys].to(queries.device)
        if rows.dtype != torch.bool:
            return rows.float()
        allowed = rows
    else:
        first = keys - chunk if past is None else past
        allowed = (
            column[None] <= (queries[:, None] + first) if causal else (column < first + chunk).expand(len(queries), -1)
        )
        if isinstance(mask, Tensor):
            allowed = allowed & mask[row % mask.shape[0], :keys].bool().to(queries.device)
    nothing = torch.zeros(allowed.shape, dtype=torch.float32, device=queries.device)
    return nothing.masked_fill(~allowed, torch.finfo(torch.float32).min)
