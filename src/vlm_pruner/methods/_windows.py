"""Windows of frames in which some places stay the same, and the means of those places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vlm_pruner.methods._density import nearest, peaks
from vlm_pruner.methods._video import Video, added_up, best, deal, topped_up

__all__ = ["Quotas", "Static", "Windows", "exact_quotas", "long_windows", "merge_static", "sizes", "sums"]

_BLOCK = 1 << 21  # numbers of a video that are in float64 at a time


@dataclass(frozen=True)
class Windows:
    """A video cut into windows of frames, and the places that do not change inside one."""

    first: Tensor  # [t] first frame of the window that each frame lies in
    static: Tensor  # [t, l] bool, in windows of several frames

    @property
    def lead(self) -> Tensor:
        """[t, l] bool: the tokens in whose place the mean of a static place stands."""
        return self.static & (self.first == torch.arange(len(self.first), device=self.first.device))[:, None]


@dataclass(frozen=True)
class Quotas:
    """How many tokens stay where."""

    dynamic: Tensor  # [t] of each frame's tokens that are not static
    static: Tensor  # [t] of the static places of the window that begins with each frame
    alone: Tensor  # [t, l] bool: static tokens that stay themselves, and are no part of the mean of their place


def sizes(found: Windows, there: Tensor) -> tuple[Tensor, Tensor]:
    """[t] tokens of each frame that are not static; [t] static places of the window that begins with it."""
    return (there & ~found.static).sum(1), found.lead.sum(1)


def exact_quotas(found: Windows, there: Tensor, score: Tensor, keep: int) -> Quotas:
    """`keep` tokens in all; what merging leaves unused keeps static tokens of the largest `score` [t, l] unmerged."""
    dynamic, static = deal(torch.cat(sizes(found, there)), keep).view(2, -1).unbind()
    merged_away = found.static & ~found.lead
    alone = topped_up(there & ~merged_away, score, keep, there) & merged_away
    return Quotas(dynamic, static, alone)


def long_windows(first: Tensor) -> tuple[Tensor, Tensor]:
    """[w] first frames of the windows of several frames, and which frames lie in each, [w, t] bool.

    There are at most t // 2 of them; what is left of the t // 2 rows are windows of one frame.
    """
    t = len(first)
    frame = torch.arange(t, device=first.device)
    begins = (first == frame) & ((first == first[:, None]).sum(1) > 1)
    frame = torch.argsort(begins.int(), descending=True, stable=True)[: t // 2]
    return frame, first == frame[:, None]


def sums(video: Video, member: Tensor, weight: Tensor) -> Tensor:
    """[w, l, d] float64: sum of the tokens at each place over the frames of each window, `member` [w, t].

    Args:
        weight: [t, l] float64.
    """
    t, length, width = video.shape
    step, member = max(1, _BLOCK // (t * width)), member.double()
    parts = []
    for begin in range(0, length, step):
        part = slice(begin, begin + step)
        parts.append(torch.einsum("wt,tld->wld", member, video.rows[:, part].double() * weight[:, part, None]))
    return torch.cat(parts, 1)


@dataclass(frozen=True)
class Static:
    """What becomes of the static places of a video."""

    kept: Tensor  # [t, l] bool, those that stay alone included
    owner: Tensor  # [t, l] cell of the kept token that represents each static one, -1 elsewhere
    window: Tensor  # [t] which of `rows` belong to the window that begins with each frame, -1 where none does
    rows: Tensor  # [w, l, d] float64

    def merged(self, found: Windows, cell: Tensor, own: Tensor) -> Tensor:
        """[k, d] float32 rows of the kept tokens in the cells [k]: the means of static places, else their `own`."""
        if not len(self.rows):
            return own.float()
        length = self.rows.shape[1]
        place = self.window.index_select(0, cell // length) * length + cell % length
        mean = found.lead.flatten().index_select(0, cell) & (place >= 0)
        rows = self.rows.flatten(0, 1).index_select(0, place.clamp_min(0))
        return rows.where(mean[:, None], own.double()).float()


def merge_static(
    video: Video, found: Windows, quotas: Quotas, neighbours: Callable[[Tensor], Tensor], own_weight: float | None
) -> Static:
    """Density peaks of the means of each window's static places, each with the row of all that are nearest to it.

    Args:
        neighbours: [w] of a density, from the numbers of peaks [w].
        own_weight: of a peak's own row beside the mean of the others; None for the mean of all.
    """
    t, length, _ = video.shape
    frame, member = long_windows(found.first)
    used = (~quotas.alone & video.there).double()
    rows = sums(video, member, used) / (member.double() @ used).clamp_min(1)[:, :, None]
    lead, count = found.lead.index_select(0, frame), quotas.static.index_select(0, frame)
    score, square = peaks(rows, lead.long(), neighbours(count)[:, None].expand_as(lead))
    centre = best(score, count, lead)
    place = torch.arange(length, device=frame.device)
    into = torch.where(centre, place, nearest(square, centre)).where(lead & centre.any(1, keepdim=True), -1)
    rows = _blended(rows, centre, into, own_weight)
    kept = torch.zeros_like(quotas.alone).index_copy(0, frame, centre) | quotas.alone
    cell = torch.arange(t * length, device=frame.device).view(t, length)
    target = torch.full_like(cell, -1).index_copy(0, frame, torch.where(into >= 0, frame[:, None] * length + into, -1))
    owner = target.index_select(0, found.first).where(found.static, -1)
    number = torch.arange(len(frame), device=frame.device)
    window = torch.full_like(cell[:, 0], -1).index_copy(0, frame, number)
    return Static(kept, cell.where(quotas.alone, owner), window, rows)


def _blended(rows: Tensor, centre: Tensor, into: Tensor, own_weight: float | None) -> Tensor:
    """[w, l, d] rows of the places `centre` [w, l], from the means `rows` [w, l, d] of what goes `into` [w, l] them."""
    length = rows.shape[1]
    slot = into if own_weight is None else into.masked_fill(centre, -1)
    total, count = added_up(rows, slot, length), added_up(torch.ones_like(rows[:, :, :1]), slot, length)
    mean = total / count.clamp_min(1)
    if own_weight is None:
        return mean
    return torch.where(count > 0, own_weight * rows + (1 - own_weight) * mean, rows)
