"""HoliTom: places that stay the same over a stretch of frames become one token, and the budget goes to the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._density import nearest, peaks
from vlm_pruner.methods._signals import SALIENCE, salience
from vlm_pruner.methods._video import Video, added_up, best, deal, likeness, settled, topped_up
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["HoliTom", "Quotas", "Windows", "holitom", "released_quotas", "windows"]

_LONGEST = 1024  # frames of a window
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


def windows(video: Video, tau: float = 0.8) -> Windows:
    """The cut that saves most tokens, one mean in place of the tokens of every static place.

    A place is static in a window where the cosine of its tokens in each two neighbouring frames is above `tau`; a
    window of w frames with m static places saves m (w - 1) tokens. Of equal cuts the one with the shorter last window.
    """
    t, there = video.shape[0], video.there
    frame = torch.arange(t, device=there.device)
    same = (likeness(video)[1:] > tau) & there[1:] & there[:-1]
    run = frame[:-1, None] - torch.where(same, -1, frame[:-1, None]).cummax(0).values if t > 1 else same.long()
    saved = frame.new_zeros(t + 1)  # by the frames before each one
    starts = torch.zeros(t + 1, t, dtype=torch.bool, device=there.device)
    for end in range(t):
        steps = frame[: min(end + 1, _LONGEST)]  # window length - 1
        options = saved[: end + 1].flip(0)[: len(steps)]
        if end:
            options = options + steps * (run[end - 1] >= steps[:, None]).sum(1)
        choice = options.argmax().view(1)
        saved[end + 1] = options.index_select(0, choice).squeeze(0)
        begin = end - choice
        starts[end + 1] = starts.index_select(0, begin).squeeze(0).index_fill(0, begin, True)
    first = frame.where(starts[t], 0).cummax(0).values
    length = (first == first[:, None]).sum(1)
    if t == 1:
        return Windows(first, torch.zeros_like(there))
    since = run.index_select(0, (first + length - 2).clamp_min(0))  # steps without a change before the window's end
    return Windows(first, (since >= (length - 1)[:, None]) & (length > 1)[:, None])


def released_quotas(found: Windows, there: Tensor, retention: float) -> Quotas:
    """The released counts: rounded up for each frame, rounded for each window, at the share that saving allows."""
    dynamic, static = _sizes(found, there)
    ratio = settled((retention * there.sum().double() / (dynamic.sum() + static.sum())).clamp_max(1.0))
    return Quotas(
        settled(dynamic * ratio).ceil().long(), settled(static * ratio).round().long(), torch.zeros_like(there)
    )


def _exact_quotas(found: Windows, there: Tensor, attention: Tensor, keep: int) -> Quotas:
    """`keep` tokens in all; what merging leaves unused keeps the best-attended static tokens as they are."""
    sizes = _sizes(found, there)
    dynamic, static = deal(torch.cat(sizes), keep).view(2, -1).unbind()
    merged_away = found.static & ~found.lead
    alone = topped_up(there & ~merged_away, attention, keep, there) & merged_away
    return Quotas(dynamic, static, alone)


def _sizes(found: Windows, there: Tensor) -> tuple[Tensor, Tensor]:
    """[t] tokens of each frame that are not static; [t] static places of the window that begins with it."""
    return (there & ~found.static).sum(1), found.lead.sum(1)


@dataclass(frozen=True)
class _Means:
    """The static places of the windows of several frames; the rest of the T // 2 rows is empty."""

    frame: Tensor  # [w] first frame of each window
    rows: Tensor  # [w, l, d] float64 mean of each place over the window
    centre: Tensor  # [w, l] bool
    owner: Tensor  # [w, l] place of the centre that takes each place in


def _means(video: Video, found: Windows, quotas: Quotas) -> _Means:
    t, length, width = video.shape
    lead = found.lead
    frame = torch.argsort(lead.any(1).int(), descending=True, stable=True)[: t // 2]
    member = (found.first == frame[:, None]).double()  # [w, t]
    parts = []
    step = max(1, _BLOCK // (t * width))
    for begin in range(0, length, step):
        part = slice(begin, begin + step)
        merged = ~quotas.alone[:, part, None]
        total = torch.einsum("wt,tld->wld", member, video.rows[:, part].double() * merged)
        parts.append(total / torch.einsum("wt,tld->wld", member, merged.double()).clamp_min(1))
    rows, group = torch.cat(parts, 1), lead.index_select(0, frame)
    count = quotas.static.index_select(0, frame)
    neighbours = count.where(count > 1, 7).clamp_max(7)[:, None].expand_as(group)
    score, square = peaks(rows, group.long(), neighbours)
    centre = best(score, count, group)
    return _Means(frame, rows, centre, nearest(square, centre))


def holitom(
    video: Video, attention: Tensor, found: Windows, quotas: Quotas, beta: float = 0.6
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Which tokens of a video stay, which of them represents each one, and the rows of the static places.

    Of a frame's dynamic tokens the best-attended stay, unmerged. Of a window's static places, averaged over it, density
    peaks stay in the window's first frame; each of the others joins the nearest peak, whose row is `beta` times its own
    plus 1 - `beta` times their mean.

    Args:
        attention: [t, l].

    Returns:
        [t, l] bool; [t, l] cell of the representative, -1 without one; [t] which of the rows below belong to the
        window that begins with each frame, -1 where none does; [w, l, d] float64.
    """
    t, length, _ = video.shape
    kept = best(attention, quotas.dynamic, video.there & ~found.static) | quotas.alone
    cell = torch.arange(t * length, device=kept.device).view(t, length)
    means, lead = _means(video, found, quotas), found.lead
    centre = torch.zeros_like(kept).index_copy(0, means.frame, means.centre)
    into = torch.zeros_like(cell).index_copy(0, means.frame, means.owner)
    into = (cell[:, :1] + into).where(lead & centre.any(1, keepdim=True), -1)  # [t, l] in the first frames
    kept = kept | centre
    owner = cell.where(kept, -1).where(~found.static | quotas.alone, into.index_select(0, found.first))
    joins = lead.index_select(0, means.frame) & ~means.centre & means.centre.any(1, keepdim=True)
    slot = means.owner.where(joins, -1)
    others = added_up(means.rows, slot, length)
    count = added_up(torch.ones_like(means.rows[:, :, :1]), slot, length)
    rows = torch.where(count > 0, beta * means.rows + (1 - beta) * others / count.clamp_min(1), means.rows)
    number = torch.arange(len(means.frame), device=kept.device)
    window = torch.full_like(cell[:, 0], -1).index_copy(0, means.frame, number)
    return kept, owner, window.where(centre.any(1), -1), rows


def merged_rows(video: Video, found: Windows, index: Tensor, window: Tensor, rows: Tensor) -> Tensor:
    """[k, d] float32 rows of the tokens `index` [k]: those of `rows` [w, l, d] for static places, else their own."""
    length = video.shape[1]
    cell, _ = video.cells(index)
    own = video.rows.flatten(0, 1).index_select(0, cell).float()
    if not len(rows):
        return own
    place = window.index_select(0, cell // length) * length + cell % length
    merged = found.lead.flatten().index_select(0, cell) & (place >= 0)
    means = rows.flatten(0, 1).index_select(0, place.clamp_min(0)).float()
    return means.where(merged[:, None], own)


@final
@dataclass(frozen=True)
class HoliTom(PruningMethod):
    """Averages what stays the same over a stretch of frames, and keeps the best-attended tokens of the rest.

    Source: Shao et al., "HoliTom", arXiv:2505.21334, NeurIPS 2025; cokeshao/HoliTom, the stage before the language
    model.
    Deviates: the counts per frame and window are the released shares by largest remainder, so that exactly `keep`
    tokens stay; the released code rounds each one, mostly up (`released_quotas`). What a still video leaves of the
    budget keeps its best-attended tokens unmerged. Density peaks have no noise: of equal ones the earlier counts, and
    the only peak of a window is the densest of seven neighbours. A static token stands at its place in the window's
    first frame. The split of dynamic tokens, with which the released code fails, is left out. Towers with [CLS] give
    its attention. Tokens that newlines are come last. Inside the language model the authors merge once more.
    Cost: O(n l d) at most, for l tokens a frame.
    """

    name: ClassVar[str] = "holitom"
    title: ClassVar[str] = "HoliTom"
    source: ClassVar[str] = "arXiv:2505.21334"
    wants: ClassVar[frozenset[Signal]] = SALIENCE

    tau: float = 0.8
    beta: float = 0.6

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        video = Video.of(tokens)
        attention = video.signal(salience(self, tokens))
        found = windows(video, self.tau)
        quotas = _exact_quotas(found, video.there, attention, keep)
        kept, owner, window, rows = holitom(video, attention, found, quotas, self.beta)
        index = video.index(kept, keep)
        return video.merged(tokens, index, owner, merged_rows(video, found, index, window, rows))
