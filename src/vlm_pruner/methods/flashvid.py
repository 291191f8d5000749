"""FlashVID: attended and diverse tokens of every frame; the others merge along the video, then inside their frame."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._density import nearest, peaks
from vlm_pruner.methods._signals import SALIENCE, salience
from vlm_pruner.methods._video import Video, added_up, averages, best, deal, even, settled, split_at, topped_up
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["FlashVID", "Links", "Quotas", "diverse", "flashvid", "links", "merged_rows", "released_quotas", "segments"]


def segments(video: Video, least: int = 8, tau: float = 0.9) -> Tensor:
    """[t, t] bool: frames of one segment.

    Cuts where the cosine of neighbouring frames' means is below `tau`, and at the lowest of the others until there are
    `least` segments.
    """
    mean = video.frames
    scale = (mean[1:].square().sum(1) * mean[:-1].square().sum(1)).sqrt()
    alike = settled((mean[1:] * mean[:-1]).sum(1) / scale.clamp_min(torch.finfo(torch.float64).tiny))
    cut = alike < tau
    rank = torch.argsort(torch.argsort(alike.masked_fill(cut, torch.inf), stable=True), stable=True)
    return split_at(cut | (rank < least - 1 - cut.sum()))


@dataclass(frozen=True)
class Quotas:
    """How many tokens of every frame stay."""

    chosen: Tensor  # [t] by attention and diversity
    merged: Tensor  # [t] means of the others, shared out in a segment
    most: int  # the largest of `chosen`
    means: bool  # is any of `merged` above 0?
    released: bool = False  # round the number of means of every frame up


def released_quotas(video: Video, retention: float, alpha: float = 0.7) -> Quotas:
    """The released counts: both kinds rounded up in every frame."""
    t, length, _ = video.shape
    budget = ceil(length * retention)
    chosen = torch.full((t,), ceil(alpha * budget), device=video.there.device)
    return Quotas(chosen, budget - chosen, ceil(alpha * budget), ceil(alpha * budget) < budget, released=True)


def _exact_quotas(video: Video, keep: int, alpha: float) -> Quotas:
    """Equal shares of `keep` of every frame."""
    t = video.shape[0]
    few, budget = keep // t, even(keep, t, video.there.device)
    more = few + (keep % t > 0)
    most = ceil(alpha * more)
    chosen = torch.full_like(budget, most).where(budget > few, ceil(alpha * few))
    return Quotas(chosen, budget - chosen, most, most < more or ceil(alpha * few) < few)


def diverse(video: Video, attention: Tensor, alike: Tensor, most: int, relevance: bool = True) -> Tensor:
    """[t, l] in which turn each token of a frame is chosen, `most` where it is not.

    The distance of token i to another is 1 - cosine, times its `attention` [t, l] and, with `relevance`, its mean
    product with the mean tokens of the frames of its segment (`alike` [t, t]). The first is the one farthest from its
    nearest token, each of the next the one farthest from those chosen.
    """
    weight, inverse = attention, _inverse(video)
    if relevance:
        centre = alike.double() @ video.frames / alike.sum(1, keepdim=True)
        weight = weight * torch.cat([torch.einsum("tld,td->tl", x, centre[part]) for part, x in video.blocks()])
    weight = weight / weight.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    length = video.shape[1]
    apart = 1 - torch.cat([torch.bmm(x, x.mT) for _, x in video.blocks()]) * inverse[:, :, None] * inverse[:, None, :]
    eye = torch.eye(length, dtype=torch.bool, device=apart.device)
    apart = settled(apart.masked_fill_(eye, 0.0).mul_(weight[:, None]))
    apart = apart.masked_fill_(~video.there[:, :, None], torch.inf)
    near = apart.topk(min(2, length), 1, largest=False).values[:, -1]  # the nearest is the token itself
    free, turn, closest = (
        video.there,
        torch.full_like(attention, most, dtype=torch.int64),
        torch.full_like(near, torch.inf),
    )
    for step in range(most):
        pick = near.masked_fill(~free, -torch.inf).argmax(1, keepdim=True)
        hit = torch.zeros_like(free).scatter(1, pick, True) & free
        free, turn = free & ~hit, turn.masked_fill(hit, step)
        row = apart.gather(1, pick[:, :, None].expand(-1, -1, length)).squeeze(1)
        near = closest = torch.minimum(closest, row)
    return turn


def _inverse(video: Video) -> Tensor:
    """[t, l] 1 / length of every token, 0 for a row of zeros."""
    tiny = torch.finfo(torch.float64).tiny
    return (video.lengths > 0) / video.lengths.clamp_min(tiny)


@dataclass(frozen=True)
class Links:
    """Which tokens merge into one of the frame before."""

    merges: Tensor  # [t, l] bool
    target: Tensor  # [t, l] place in the frame before


def links(video: Video, alike: Tensor, chosen: Tensor, quotas: Quotas, threshold: float = 0.8) -> Links:
    """Tokens that were not `chosen` [t, l], each to the most similar one of the frame before, in segments [t, t].

    It merges where the cosine is above `threshold`; where too few tokens of a segment would remain for its budget,
    above the cosine that leaves enough of them.
    """
    t, length, _ = video.shape
    free = video.there & ~chosen
    cosine, target = torch.full_like(chosen, -1.0, dtype=torch.float64), torch.zeros_like(chosen, dtype=torch.int64)
    inverse, here = _inverse(video), video.rows[0].to(torch.float64, copy=True)
    before = torch.empty_like(here)
    for frame in range(1, t):
        here, before = before.copy_(video.rows[frame]), here
        alike_ = here @ before.mT * inverse[frame, :, None] * inverse[frame - 1]
        found = settled(alike_).masked_fill_(~free[frame - 1], -1.0).max(1)
        cosine[frame], target[frame] = found.values, found.indices
    first = torch.cat([alike.new_ones(1), ~alike.diagonal(1)])
    cosine = cosine.masked_fill(~free | first[:, None], -1.0)
    budget = (alike * (quotas.chosen + quotas.merged)).sum(1)
    spare = (alike * video.there.sum(1)).sum(1) - budget  # [t] tokens of the segment that may go
    above = (alike * (cosine > threshold).sum(1)).sum(1)
    begin = (alike.int().argmax(1)) * length
    order = torch.argsort(cosine.flatten(), descending=True, stable=True)
    segment = begin[:, None].expand(t, length).flatten().index_select(0, order)
    order = order.index_select(0, torch.argsort(segment, stable=True))  # by segment, the most similar first
    limit = cosine.flatten().index_select(0, order.index_select(0, (begin + spare - 1).clamp(0, t * length - 1)))
    limit = limit.masked_fill(spare < 1, torch.inf).where(above > spare, threshold)
    context = (alike * quotas.merged).sum(1) > 0
    return Links((cosine > limit[:, None]) & context[:, None], target)


def added_along(video: Video, found: Links, true_counts: bool = False) -> tuple[Tensor, Tensor]:
    """[t, l, d] float32 rows with what merged into them along the video, and [t, l] the cell that each token is in.

    A row is the sum of all tokens that went into it, over 1 + the number of those that went into it directly, as
    released; with `true_counts` over the number of all.
    """
    t, length, _ = video.shape
    slot = found.target.where(found.merges, -1)
    rows = torch.empty_like(video.rows, dtype=torch.float32)
    total, count = video.rows[-1].double(), torch.ones_like(slot[:1].mT, dtype=torch.float64)
    for frame in range(t - 1, 0, -1):
        rows[frame] = total / count
        total = video.rows[frame - 1].to(torch.float64, copy=True).add_(added_up(total, slot[frame], length))
        count = 1 + added_up(count if true_counts else torch.ones_like(count), slot[frame], length)
    rows[0] = total / count
    cell = torch.arange(t * length, device=slot.device).view(t, length)
    root = [cell[0]]
    for frame in range(1, t):
        root.append(root[-1].index_select(0, found.target[frame]).where(found.merges[frame], cell[frame]))
    return rows, torch.stack(root)


@dataclass(frozen=True)
class Merge:
    """What stays of a video, and what goes into it."""

    kept: Tensor  # [t, l] bool
    owner: Tensor  # [t, l] cell of the token that represents each one, -1 where none does
    rows: Tensor  # [t, l, d] rows with what merged into them along the video
    into: Tensor  # [t, l] cell of the peak that each of these goes into, -1 where it goes into none


def flashvid(
    video: Video,
    attention: Tensor,
    alike: Tensor,
    quotas: Quotas,
    threshold: float = 0.8,
    relevance: bool = True,
    true_counts: bool = False,
) -> Merge:
    """Chosen tokens of every frame, and density peaks of what is left once the others have merged along the video.

    Args:
        attention: [t, l].
        alike: [t, t] bool, frames of one segment.
    """
    t, length, _ = video.shape
    cell = torch.arange(t * length, device=alike.device).view(t, length)
    chosen = diverse(video, attention, alike, quotas.most, relevance) < quotas.chosen[:, None]
    if not quotas.means:
        return Merge(chosen, cell.where(chosen, -1), video.rows, torch.full_like(cell, -1))
    found = links(video, alike, chosen, quotas, threshold)
    rows, root = added_along(video, found, true_counts)
    left = video.there & ~chosen & ~found.merges
    count = _means(left.sum(1), alike, quotas)
    neighbours = count.where(count > 1, 7).clamp_max(7)[:, None].expand(t, length)
    score, square = peaks(rows, left.long(), neighbours)
    centre = best(score, count, left)
    into = torch.where(centre, cell, cell[:, :1] + nearest(square, centre))
    into = into.where(left & centre.any(1, keepdim=True), -1)
    owner = torch.where(chosen, cell, into.flatten().index_select(0, root.flatten()).view(t, length))
    return Merge(chosen | centre, owner, rows, into)


def _means(left: Tensor, alike: Tensor, quotas: Quotas) -> Tensor:
    """[t] means of every frame, for the tokens `left` [t] in it: the budget of a segment in proportion to them."""
    budget, total = (alike * quotas.merged).sum(1), (alike * left).sum(1)
    if not quotas.released:
        return deal(left, budget, alike)
    ratio = budget.double() / total.clamp_min(1)
    return torch.minimum(left, (left * ratio).ceil().long())  # of a product in floating point, as released


def merged_rows(video: Video, merge: Merge, index: Tensor) -> Tensor:
    """[k, d] rows of the kept tokens `index` [k]: of a peak the mean of what goes into it."""
    slot = video.slots(index, merge.into.flatten())
    mean, count = averages(merge.rows.flatten(0, 1), slot, len(index))
    return torch.where(count > 0, mean, video.rows.flatten(0, 1).index_select(0, video.cells(index)[0]))


@final
@dataclass(frozen=True)
class FlashVID(PruningMethod):
    """Keeps attended, diverse tokens of every frame, and means of the others, merged along the video and in frames.

    Source: Fan et al., "FlashVID", arXiv:2602.08024, ICLR 2026; Fanziyang-v/FlashVID, the stage before the language
    model.
    Deviates: every frame's budget is an equal share, and its means are shared out by largest remainder, so that exactly
    `keep` tokens stay; the released code rounds all of them up (`released_quotas`). Frames of their own do not average
    chosen tokens a second time, and a chosen token cannot be chosen again. A merged row is divided by 1 + the rows that
    went into it directly, as released, unless `true_counts`. Density peaks have no noise: of equal ones the earlier
    counts, and the only peak of a frame is the densest of seven neighbours. Towers with [CLS] give its attention.
    Tokens that newlines are come last. The authors keep 1.25 times the tokens here and prune at layer 20.
    Cost: O(n l d), for l tokens a frame.
    """

    name: ClassVar[str] = "flashvid"
    title: ClassVar[str] = "FlashVID"
    source: ClassVar[str] = "arXiv:2602.08024"
    wants: ClassVar[frozenset[Signal]] = SALIENCE

    alpha: float = 0.7
    threshold: float = 0.8
    segments: int = 8
    tau: float = 0.9
    relevance: bool = True
    true_counts: bool = False

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        video = Video.of(tokens)
        attention = video.signal(salience(self, tokens))
        alike, quotas = segments(video, self.segments, self.tau), _exact_quotas(video, keep, self.alpha)
        merge = flashvid(video, attention, alike, quotas, self.threshold, self.relevance, self.true_counts)
        index = video.index(topped_up(merge.kept, attention, keep, video.there), keep)
        return video.merged(tokens, index, merge.owner, merged_rows(video, merge, index))
