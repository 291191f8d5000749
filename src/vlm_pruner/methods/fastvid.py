"""FastVID: the best-attended tokens, and density peaks of some frames of a segment that take the others in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._density import peaks
from vlm_pruner.methods._signals import SALIENCE, salience
from vlm_pruner.methods._video import Video, best, even, settled, split_at, topped_up
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.sync import declared_sync, may_read
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["FastVID", "Merge", "Quotas", "Segments", "fastvid", "merged_rows", "released_quotas", "segments"]

_NEIGHBOURS = 4
_APART = 4  # frames from one anchor to the next
_CONTEXT = 0.4  # share of a segment's tokens that are peaks
_OWN = 0.6  # least weight of a peak's own row
_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class Segments:
    """Frames by segment."""

    alike: Tensor  # [t, t] bool, frames of one segment
    holds: Tensor  # [t] bool, frames that keep tokens: all, or the last one of each run of frames
    later: Tensor  # [t] how many frames of the segment behind each one hold tokens

    @property
    def anchor(self) -> Tensor:
        """[t] bool: every fourth frame that holds tokens, counted from the last one; its peaks are kept."""
        return self.holds & (self.later % _APART == 0)

    def total(self, values: Tensor) -> Tensor:
        """[t] sum of `values` [t] over the segment of each frame."""
        return (self.alike * values).sum(1)


@dataclass(frozen=True)
class Quotas:
    """How many tokens of every frame stay."""

    salient: Tensor  # [t] by attention
    context: Tensor  # [t] peaks
    peaks: int  # how many of these there are at most, all frames together


def segments(video: Video, least: int = 8, tau: float = 0.9, run_tau: float | None = None) -> Segments:
    """Cuts where the cosine of neighbouring frames' means is below `tau`, and at the lowest, up to `least` segments.

    With `run_tau`, frames of a segment whose cosines reach it are a run, and its last frame alone holds tokens.
    """
    mean = video.frames
    scale = (mean[1:].square().sum(1) * mean[:-1].square().sum(1)).sqrt()
    alike = settled((mean[1:] * mean[:-1]).sum(1) / scale.clamp_min(torch.finfo(torch.float64).tiny))
    cut = (torch.argsort(torch.argsort(alike, stable=True), stable=True) < least - 1) | (alike < tau)
    same, end = split_at(cut), cut.new_ones(1)
    holds = torch.cat([cut | (alike < run_tau), end]) if run_tau is not None else torch.cat([cut, end]) | True
    frame = torch.arange(len(holds), device=holds.device)
    return Segments(same, holds, (same & holds & (frame > frame[:, None])).sum(1))


def released_quotas(video: Video, found: Segments, retention: float, runs: bool = False) -> Quotas:
    """The released counts: int(l `retention`) tokens a frame, less what rounding down over the anchors loses."""
    t, length, _ = video.shape
    each = int(length * retention)
    size = found.alike.sum(1)
    if runs:
        return _of_runs(found, size * each, length, t * each)
    few = int(each * _CONTEXT)
    context = (few * size // found.total(found.anchor)).clamp_max(length - each + few)
    return Quotas(torch.full_like(size, each - few), context * found.anchor, t * few)


def _exact_quotas(video: Video, found: Segments, keep: int, runs: bool) -> Quotas:
    """Equal shares of `keep` of every frame, all of them spent in its segment."""
    t, length, _ = video.shape
    budget = found.total(even(keep, t, video.there.device))
    if runs:
        return _of_runs(found, budget, length, keep)
    salient = keep // t - int(keep // t * _CONTEXT)
    context = _over_anchors(found, budget - found.alike.sum(1) * salient).clamp_max(length - salient)
    return Quotas(torch.full_like(context, salient), context, keep - t * salient)


def _of_runs(found: Segments, budget: Tensor, length: int, total: int) -> Quotas:
    """Shares of every segment's `budget` [t], `total` in all, over the frames that hold tokens, if they have room."""
    peaks_ = (budget.double() * _CONTEXT).long().clamp_min(1).minimum(budget)
    count, left = found.total(found.holds), budget - peaks_
    salient = left // count + (count - 1 - found.later < left % count)
    context = _over_anchors(found, peaks_).clamp_max(length // 2)
    most = min(total, int(total * _CONTEXT) + len(context))  # one in each segment at least
    return Quotas(torch.minimum(salient, length - context) * found.holds, context, most)


def _over_anchors(found: Segments, budget: Tensor) -> Tensor:
    """[t] equal shares of a segment's `budget` [t] for its anchors, the later ones of which get what is left over."""
    count = found.total(found.anchor)
    return (budget // count + (found.later // _APART < budget % count)) * found.anchor


@dataclass(frozen=True)
class Merge:
    """What stays of a video, and what goes into it."""

    kept: Tensor  # [t, l] bool
    centre: Tensor  # [t, l] bool, the peaks among them
    pool: Tensor  # [t, l] bool, tokens that go into the peaks of their segment


def fastvid(video: Video, attention: Tensor, found: Segments, quotas: Quotas, keep: int | None = None) -> Merge:
    """The best-attended tokens of every frame, and the density peaks of the anchors' other tokens.

    With `keep`, the best-attended of the tokens that are left fill up what quotas cannot hold.

    Args:
        attention: [t, l].
    """
    salient = best(attention, quotas.salient, video.there & found.holds[:, None])
    rest = video.there & ~salient
    among = rest & found.anchor[:, None]
    score, _ = peaks(video.rows, among.long(), _NEIGHBOURS, _NEIGHBOURS)
    centre = best(score, quotas.context, among)
    kept = salient | centre
    if keep is not None:
        kept = topped_up(kept, attention, keep, video.there)
    return Merge(kept, centre, rest & (centre | ~kept))


def merged_rows(
    video: Video, found: Segments, merge: Merge, index: Tensor, most: int, runs: bool = False
) -> tuple[Tensor, Tensor]:
    """[k, d] float32 rows of the kept tokens `index` [k], and [t, l] the cell of what represents each token, or -1.

    Every token of the pool goes into the peak of each anchor of its segment that it resembles most; a peak's row is w
    times its own plus 1 - w times their mean, w = max(1 / (members + 1), 0.6).

    Peaks go into peaks of their own anchor, themselves as a rule, unless the frames are `runs`.

    Args:
        most: peaks at most.
    """
    t, length, _ = video.shape
    cell, placed = video.cells(index)
    own = video.rows.flatten(0, 1).index_select(0, cell).float()
    peak = merge.centre.flatten().index_select(0, cell) & placed
    slot = torch.argsort(peak.int(), descending=True, stable=True)[: max(1, most)]  # [c], peaks first
    cell, peak, rows = cell.index_select(0, slot), peak.index_select(0, slot), own.index_select(0, slot)
    frame = cell // length
    near = found.alike.index_select(0, frame) & peak[:, None]  # [c, t]
    unit = rows.double() / torch.linalg.vector_norm(rows.double(), dim=1, keepdim=True).clamp_min(_TINY)
    total, count, owner = torch.zeros_like(rows), torch.zeros_like(rows[:, :1]), []
    for number, part in enumerate(_ranges(near)):
        takes = near[part, number, None] & merge.pool[number]  # [c', l]
        if runs:
            takes &= ~(merge.centre[number] & (frame[part] == number)[:, None])
        x = video.rows[number]
        cosine = settled(unit[part] @ x.double().T / video.lengths[number].clamp_min(_TINY))
        cosine = cosine.masked_fill(~takes, -torch.inf)
        member = (_closest(cosine, frame[part], t) & takes).float()
        total[part] += member @ x.float()
        count[part] += member.sum(1, keepdim=True)
        owner.append(cell[part].index_select(0, cosine.argmax(0)).where(takes.any(0), -1))
    weight = (1 / (count + 1)).clamp_min(_OWN).where(count > 0, 1.0)
    rows = weight * rows + (1 - weight) * total / count.clamp_min(1)
    own_cell = torch.arange(t * length, device=cell.device).view(t, length)
    return own.index_copy(0, slot, rows), own_cell.where(merge.kept, torch.stack(owner))


def _ranges(near: Tensor) -> list[slice]:
    """Where the peaks begin and end that are of each frame's segment, `near` [c, t]; all of them on another device."""
    if not may_read(near):
        return [slice(0, len(near))] * near.shape[1]
    with declared_sync():
        first, last = near.int().argmax(0).tolist(), near.flip(0).int().argmax(0).tolist()
    return [slice(begin, max(begin + 1, len(near) - end)) for begin, end in zip(first, last, strict=True)]


def _closest(cosine: Tensor, frame: Tensor, frames: int) -> Tensor:
    """[c, n] bool: for every token the first of the largest of `cosine` [c, n] among peaks of each `frame` [c]."""
    home = frame[:, None].expand_as(cosine)
    top = torch.full((frames, cosine.shape[1]), -torch.inf, dtype=cosine.dtype, device=cosine.device)
    top = top.scatter_reduce(0, home, cosine, "amax")
    number = torch.arange(len(cosine), device=cosine.device)[:, None].expand_as(cosine)
    number = number.where(cosine == top.gather(0, home), len(cosine))
    first = torch.full((frames, cosine.shape[1]), len(cosine), device=cosine.device)
    return number == first.scatter_reduce(0, home, number, "amin").gather(0, home)


@final
@dataclass(frozen=True)
class FastVID(PruningMethod):
    """Keeps the best-attended tokens of every frame, and density peaks of every fourth frame, which absorb the others.

    Source: Shen et al., "FastVID", arXiv:2503.11187, NeurIPS 2025; LunarShen/FastVID. `tau` = 0.84 with `run_tau` =
    0.95 is its version for models that merge frames: only the last one of a run of similar frames keeps tokens.
    Deviates: every frame's budget is an equal share, all of it is spent in its segment, and what its anchors cannot
    hold keeps the best-attended tokens unmerged, so that exactly `keep` tokens stay; the released code loses several
    per cent to rounding (`released_quotas`). Fewer than eight frames, on which it fails, are segments of one frame.
    Frames are compared by the means of their tokens, not by vectors of a second vision tower. Density peaks have no
    noise: of equal ones the earlier counts. Towers with [CLS] give its attention. Tokens that newlines are come last.
    Cost: O(n d (l + keep)), for l tokens a frame.
    """

    name: ClassVar[str] = "fastvid"
    title: ClassVar[str] = "FastVID"
    source: ClassVar[str] = "arXiv:2503.11187"
    wants: ClassVar[frozenset[Signal]] = SALIENCE

    segments: int = 8
    tau: float = 0.9
    run_tau: float | None = None

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        video, runs = Video.of(tokens), self.run_tau is not None
        attention = video.signal(salience(self, tokens))
        found = segments(video, self.segments, self.tau, self.run_tau)
        quotas = _exact_quotas(video, found, keep, runs)
        merge = fastvid(video, attention, found, quotas, keep)
        index = video.index(merge.kept, keep)
        rows, owner = merged_rows(video, found, merge, index, quotas.peaks, runs)
        return video.merged(tokens, index, owner, rows)
