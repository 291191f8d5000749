"""What the methods for videos share: tokens by frame and place, scores that no rounding decides, whole shares.

Nothing here reads a value off the device: how many tokens a frame keeps is a tensor, and what a frame lacks is masked.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vlm_pruner.ops.basic import chosen
from vlm_pruner.ops.merge import held
from vlm_pruner.ops.sync import may_read
from vlm_pruner.types import Selection, VisualTokens

__all__ = [
    "Video",
    "added_up",
    "averages",
    "best",
    "deal",
    "even",
    "likeness",
    "settled",
    "similar",
    "split_at",
    "topped_up",
]

_BLOCK = {True: 1 << 20, False: 1 << 24}  # numbers of a video in float64 at a time: in a cache, on another device


@dataclass(frozen=True)
class Video:
    """Tokens by frame and by place in the frame. A picture, or tokens without a grid, are a video of one frame."""

    rows: Tensor  # [t, l, d] in the dtype of the features, zeros where there is no token
    there: Tensor  # [t, l] bool, False at places whose token was dropped by an earlier stage
    cell: Tensor | None = None  # [n] frame * l + place of every token, t * l where it has no place; None = raster order

    @classmethod
    def of(cls, tokens: VisualTokens) -> Video:
        """Tokens by the `grid` (t, h, w), and by their `position` where the grid alone does not place them.

        Raises:
            InvalidSelectionError: a grid of several frames that does not fit tokens without positions.
        """
        n, grid = len(tokens), tokens.grid
        if grid is None or grid[0] == 1:
            return cls(tokens.features[None], torch.ones(1, n, dtype=torch.bool, device=tokens.device))
        t, h, w = grid
        place = tokens.coordinates()  # refuses a grid that does not fit
        if tokens.position is None:
            there = torch.ones(t, h * w, dtype=torch.bool, device=tokens.device)
            return cls(tokens.features.reshape(t, h * w, -1), there)
        cell = _cells(place, grid)
        token = torch.full((t * h * w + 1,), n, device=tokens.device)
        token = token.index_copy(0, cell, torch.arange(n, device=tokens.device))[:-1]  # the token of every cell
        there = token < n
        rows = tokens.features.index_select(0, token.clamp_max(n - 1)).masked_fill(~there[:, None], 0.0)
        return cls(rows.view(t, h * w, -1), there.view(t, h * w), cell)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(t, l, d)."""
        t, length, width = self.rows.shape
        return t, length, width

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Some frames at a time and their rows [b, l, d] in float64, in memory that the next ones are written to."""
        t, length, width = self.shape
        step = min(t, max(1, _BLOCK[may_read(self.rows)] // (length * width)))
        room = torch.empty(step, length, width, dtype=torch.float64, device=self.rows.device)
        for first in range(0, t, step):
            part = slice(first, min(first + step, t))
            yield part, room[: part.stop - first].copy_(self.rows[part])

    @functools.cached_property
    def lengths(self) -> Tensor:
        """[t, l] float64 length of every token."""
        return self._measured[0]

    @functools.cached_property
    def frames(self) -> Tensor:
        """[t, d] float64 mean of every frame's tokens."""
        return self._measured[1] / self.there.sum(1, keepdim=True).clamp_min(1)

    @functools.cached_property
    def _measured(self) -> tuple[Tensor, Tensor]:
        """[t, l] lengths and [t, d] sums."""
        found = [(torch.linalg.vector_norm(x, dim=2), x.sum(1)) for _, x in self.blocks()]
        lengths, sums = zip(*found, strict=True)
        return torch.cat(lengths), torch.cat(sums)

    def signal(self, values: Tensor) -> Tensor:
        """[t, l] float64 of one number per token [n], zeros where there is none."""
        t, length, _ = self.shape
        if self.cell is None:
            return values.double().view(t, length)
        home = torch.zeros(t * length + 1, dtype=torch.float64, device=values.device)
        return home.index_copy(0, self.cell, values.double())[:-1].view(t, length)

    def index(self, kept: Tensor, keep: int) -> Tensor:
        """[keep] tokens at the places `kept` [t, l], ascending; tokens without a place fill up what is missing."""
        taken = kept.flatten()
        if self.cell is not None:
            taken = torch.cat([taken, taken.new_zeros(1)]).index_select(0, self.cell)
        return torch.argsort(taken.int(), descending=True, stable=True)[:keep].sort().values

    def selection(self, kept: Tensor, keep: int) -> Selection:
        """The choice of the places `kept` [t, l], of which there are at most `keep`."""
        return Selection(index=self.index(kept, keep))

    def cells(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """[k] cell of every token of `index`, 0 where it has none, and [k] bool, whether it has one."""
        if self.cell is None:
            return index, torch.ones_like(index, dtype=torch.bool)
        cell = self.cell.index_select(0, index)
        placed = cell < self.there.numel()
        return cell.where(placed, 0), placed

    def slots(self, index: Tensor, cell: Tensor) -> Tensor:
        """[m] place in `index` of the token of every `cell` [m]; -1 where that is not in it, or the cell is -1."""
        own, placed = self.cells(index)
        own = own.where(placed, self.there.numel())
        slot = torch.full((self.there.numel() + 1,), -1, device=index.device)
        slot = slot.index_copy(0, own, torch.arange(len(index), device=index.device))
        return slot.index_select(0, cell.clamp_min(0)).where(cell >= 0, -1)

    def merged(self, tokens: VisualTokens, index: Tensor, owner: Tensor, rows: Tensor) -> Selection:
        """A `Selection` of `index` with replacement rows.

        Args:
            owner: [t, l] cell of the kept token that represents each one, -1 where none does.
            rows: [k, d] replacement rows in `index` order; tokens without a place stay as they are.
        """
        source = self.slots(index, owner.flatten())
        if self.cell is not None:
            source = torch.cat([source, source.new_full((1,), -1)]).index_select(0, self.cell)
        own = torch.arange(len(index), device=index.device)
        placed = self.cells(index)[1][:, None]
        features = held(rows, tokens.features.dtype).where(placed, tokens.features.index_select(0, index))
        return Selection(index=index, features=features, source=source.index_copy(0, index, own))


def _cells(place: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """[n] cell of every token of `place` [n, 3]; the number of cells where it lies in none, or not last in it."""
    t, h, w = grid
    whole = place.round().long()
    inside = (whole == place).all(1) & (whole >= 0).all(1)
    inside &= (whole[:, 0] < t) & (whole[:, 1] < h) & (whole[:, 2] < w)
    cell = (whole[:, 0] * h + whole[:, 1]) * w + whole[:, 2]
    cell = cell.where(inside, t * h * w)
    ordered, token = cell.sort(stable=True)
    again = torch.cat([ordered[1:] == ordered[:-1], inside.new_zeros(1)])  # a CLS token in front of a frame
    return cell.index_copy(0, token, ordered.masked_fill(again, t * h * w))


def settled(x: Tensor) -> Tensor:
    """`x` of order one, rounded to 2^-40, so that what only the order of additions tells apart is a tie."""
    return (x * 2.0**40).round() * 2.0**-40


def likeness(video: Video, back: int = 1) -> Tensor:
    """[t, l] float64 cosine of each token with the one at its place `back` frames earlier; 0 where there is none."""
    t, length, width = video.shape
    *rooms, product = torch.empty(back + 2, length, width, dtype=torch.float64, device=video.rows.device).unbind()
    dot = [torch.zeros_like(video.lengths[0])] * min(back, t)
    for frame in range(t):
        here = rooms[frame % len(rooms)].copy_(video.rows[frame])
        if frame >= back:
            dot.append(torch.mul(here, rooms[(frame - back) % len(rooms)], out=product).sum(1))
    scale = video.lengths * torch.cat([torch.ones_like(video.lengths[:back]), video.lengths[:-back]])[:t]
    return settled(torch.stack(dot) / scale.clamp_min(torch.finfo(torch.float64).tiny))


def similar(video: Video, vectors: Tensor) -> Tensor:
    """[t, l] float64 cosine of each token with the vector of its frame, `vectors` [t, d]."""
    dot = torch.cat([torch.einsum("tld,td->tl", x, vectors[part]) for part, x in video.blocks()])
    scale = video.lengths * torch.linalg.vector_norm(vectors, dim=1)[:, None]
    return settled(dot / scale.clamp_min(torch.finfo(torch.float64).tiny))


def best(score: Tensor, quota: Tensor, among: Tensor) -> Tensor:
    """[t, l] bool: in every frame the `quota` [t] largest of `score` [t, l] `among` [t, l]; ties to the lower place."""
    order = torch.argsort(score, dim=1, descending=True, stable=True)
    order = order.gather(1, torch.argsort(among.gather(1, order).int(), dim=1, descending=True, stable=True))
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    return (rank < quota[:, None]) & among


def topped_up(kept: Tensor, score: Tensor, keep: int, there: Tensor) -> Tensor:
    """[t, l] bool: `keep` of the tokens that are `there`, those `kept` first, by `score`, and then the others by it.

    Args:
        kept, score, there: [t, l].
    """
    order = torch.argsort(score.flatten(), descending=True, stable=True)
    level = (there.int() + (kept & there).int()).flatten().index_select(0, order)
    order = order.index_select(0, torch.argsort(level, descending=True, stable=True))
    return chosen(order[:keep], score.numel()).view_as(there) & there


def deal(sizes: Tensor, total: Tensor | int, alike: Tensor | None = None) -> Tensor:
    """[p] how many of `total` tokens parts of the given `sizes` [p] get: in proportion, by largest remainder.

    Whole numbers throughout, never more than a part holds, ties to the earlier part. Where `alike` [p, p] says which
    parts share, `total` is [p], the same for all that share.
    """
    share = torch.ones(len(sizes), len(sizes), dtype=torch.bool, device=sizes.device) if alike is None else alike
    whole = (share * sizes).sum(1)
    total = whole.clamp_max(total)
    quota = sizes * total // whole.clamp_min(1)
    rest = sizes * total % whole.clamp_min(1)
    spare = total - (share * quota).sum(1)
    place = torch.arange(len(sizes), device=sizes.device)
    before = (rest > rest[:, None]) | ((rest == rest[:, None]) & (place < place[:, None]))
    return quota + ((share & before).sum(1) < spare)


def even(total: int, parts: int, device: torch.device) -> Tensor:
    """[parts] int64: `total` shared out equally, the odd ones at even distances."""
    edge = torch.arange(parts + 1, device=device) * total // parts
    return edge[1:] - edge[:-1]


def split_at(cut: Tensor) -> Tensor:
    """[t, t] bool: which frames lie in one segment, with a cut behind every frame where `cut` [t - 1]."""
    segment = torch.cat([cut.new_zeros(1, dtype=torch.int64), cut.cumsum(0)])
    return segment == segment[:, None]


def added_up(rows: Tensor, slot: Tensor, k: int) -> Tensor:
    """[k, d] sums of the `rows` [m, d] of each slot [m]; a slot of -1 takes no part.

    A GPU adds scattered rows up in no fixed order: there it is one product with a [k, m] matrix.
    """
    if not may_read(rows):
        return (slot == torch.arange(k, device=slot.device)[:, None]).to(rows.dtype) @ rows
    return rows.new_zeros(k + 1, rows.shape[1]).index_add_(0, slot.where(slot >= 0, k), rows)[:k]


def averages(rows: Tensor, slot: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """[k, d] means of the `rows` [m, d] of each slot [m], float32 at least, zeros where there are none; [k, 1] numbers.

    A slot of -1 takes no part.
    """
    rows = rows.double() if rows.dtype == torch.float64 else rows.float()
    count = added_up(torch.ones_like(rows[:, :1]), slot, k)
    return added_up(rows, slot, k) / count.clamp_min(1), count
