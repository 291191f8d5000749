"""Windows of frames in which some places stay the same, and the means of those places."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vlm_pruner.methods._density import nearest, peaks
from vlm_pruner.methods._video import Video, averages, best, deal, topped_up

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


def sums(video: Video, member: Tensor, weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some places at a time, and [w, p, d] float64 the sum of the tokens there over each window's frames [w, t] bool.

    Args:
        weight: [t, l] float64.
    """
    t, length, width = video.shape
    step, member = max(1, _BLOCK // (t * width)), member.double()
    for begin in range(0, length, step):
        part = slice(begin, begin + step)
        rows = video.rows[:, part].to(torch.float64, copy=True).mul_(weight[:, part, None])
        yield part, torch.einsum("wt,tld->wld", member, rows)


@dataclass(frozen=True)
class Static:
    """What becomes of the static places of a video."""

    kept: Tensor  # [t, l] bool, those that stay alone included
    owner: Tensor  # [t, l] cell of the kept token that represents each static one, -1 elsewhere
    frame: Tensor  # [w] first frames of the windows of several frames
    centre: Tensor  # [w, l] bool
    into: Tensor  # [w, l] place of the peak that each static place goes into, -1 where none does
    means: Tensor  # [w, l, d] float32

    def merged(self, video: Video, index: Tensor, own: Tensor, weight: float | None) -> Tensor:
        """[k, d] float32 rows of the kept tokens `index` [k]: those of the peaks, and of the others their `own`.

        Args:
            weight: of a peak's own mean beside the mean of those that go into it; None for the mean of all of them.
        """
        if not len(self.frame):
            return own.float()
        t, length, _ = video.shape
        cell, _ = video.cells(index)
        target = torch.where(self.into >= 0, self.frame[:, None] * length + self.into, -1)
        slot = video.slots(index, target.flatten()).view_as(target)
        slot = (slot if weight is None else slot.masked_fill(self.centre, -1)).flatten()
        means = self.means.flatten(0, 1)
        mean, count = averages(means, slot, len(index))
        number = torch.arange(len(self.frame), device=cell.device)
        window = torch.full((t,), -1, device=cell.device).index_copy(0, self.frame, number)
        place = (window.index_select(0, cell // length) * length + cell % length).clamp_min(0)
        peak = self.centre.flatten().index_select(0, place) & (window.index_select(0, cell // length) >= 0)
        if weight is not None:
            first = means.index_select(0, place)
            mean = torch.where(count > 0, weight * first + (1 - weight) * mean, first)
        return mean.where(peak[:, None], own.float())


def merge_static(video: Video, found: Windows, quotas: Quotas, neighbours: Callable[[Tensor], Tensor]) -> Static:
    """Density peaks of the means of each window's static places, and which of them the others are nearest to.

    Args:
        neighbours: [w] of a density, from the numbers of peaks [w].
    """
    t, length, width = video.shape
    frame, member = long_windows(found.first)
    used = (~quotas.alone & video.there).double()
    means = torch.empty(len(frame), length, width, dtype=torch.float32, device=frame.device)
    count = (member.double() @ used).clamp_min(1)[:, :, None]
    for part, total in sums(video, member, used):
        means[:, part] = total.div_(count[:, part])
    lead, most = found.lead.index_select(0, frame), quotas.static.index_select(0, frame)
    score, square = peaks(means, lead.long(), neighbours(most)[:, None].expand_as(lead))
    centre = best(score, most, lead)
    place = torch.arange(length, device=frame.device)
    into = torch.where(centre, place, nearest(square, centre)).where(lead & centre.any(1, keepdim=True), -1)
    kept = torch.zeros_like(quotas.alone).index_copy(0, frame, centre) | quotas.alone
    cell = torch.arange(t * length, device=frame.device).view(t, length)
    target = torch.full_like(cell, -1).index_copy(0, frame, torch.where(into >= 0, frame[:, None] * length + into, -1))
    owner = target.index_select(0, found.first).where(found.static, -1)
    return Static(kept, cell.where(quotas.alone, owner), frame, centre, into, means)
