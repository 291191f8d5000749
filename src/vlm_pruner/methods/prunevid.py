"""PruneVid, merging in space and time: still places become one token, and what is left clusters in its frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._density import nearest, peaks
from vlm_pruner.methods._video import Video, averages, best, settled
from vlm_pruner.methods._windows import Quotas, Static, Windows, exact_quotas, long_windows, merge_static, sizes, sums
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.methods.evs import novelty
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["PruneVid", "contiguous", "merged_rows", "prunevid", "published_quotas", "windows"]

_NEIGHBOURS = 7
_SMALL = 14  # sets of so many tokens stay as they are where no budget is given


def windows(video: Video, tau: float = 0.8, share: float = 0.25) -> Windows:
    """Windows of frames whose mean tokens cluster, and the places whose tokens are alike all over one.

    Frames cluster around int(t `share`) density peaks, at least one. A place is static where the mean cosine of its
    tokens in each two different frames of the window is above `tau`.
    """
    t = video.shape[0]
    mean = video.frames[None]
    score, square = peaks(mean, torch.ones_like(mean[:, :, 0], dtype=torch.int64), _NEIGHBOURS, _NEIGHBOURS)
    centre = best(score, torch.full_like(score[:, 0], max(1, int(t * share))), torch.ones_like(score, dtype=torch.bool))
    own = torch.arange(t, device=score.device).where(centre, nearest(square, centre))
    first = contiguous(own[0])
    frame, member = long_windows(first)
    lengths = video.lengths
    size = member.sum(1)[:, None].double()
    unit = (lengths > 0) / lengths.clamp_min(torch.finfo(torch.float64).tiny)
    alike = torch.cat([torch.linalg.vector_norm(total, dim=2).square() for _, total in sums(video, member, unit)], 1)
    alike = settled((alike - size) / (size * (size - 1)).clamp_min(1))  # over ordered pairs
    complete = (member.double() @ video.there.double()) == size
    still = torch.zeros_like(video.there).index_copy(0, frame, (alike > tau) & complete & (size > 1))
    return Windows(first, still.index_select(0, first))


def contiguous(label: Tensor) -> Tensor:
    """[t] first frame of the window of each frame, from the cluster `label` [t] of each.

    The longest runs of frames of a cluster stay, unless they are single frames. A stretch of other frames goes to the
    longer of the runs beside it, to the left one on a tie; what has none beside it is windows of one frame.
    """
    t = len(label)
    frame = torch.arange(t, device=label.device)
    first = _starts(label[1:] != label[:-1])
    length = (first == first[:, None]).sum(1)
    longest = length.where(label == label[:, None], 0).amax(1)
    stays = (length == longest) & (longest > 1)
    left = frame.where(stays, -1).cummax(0).values
    right = frame.where(stays, t).flip(0).cummin(0).values.flip(0)
    beside_left = length.index_select(0, left.clamp_min(0)).where(left >= 0, 0)
    beside_right = length.index_select(0, right.clamp_max(t - 1)).where(right < t, 0)
    into = torch.where(beside_left >= beside_right, left, right).where(~stays, frame)
    joined = label.index_select(0, into.clamp(0, t - 1)).where((into >= 0) & (into < t), t + frame)
    return _starts(joined[1:] != joined[:-1])


def _starts(cut: Tensor) -> Tensor:
    """[t] first frame of the run of each frame, with a cut behind every frame where `cut` [t - 1]."""
    frame = torch.arange(len(cut) + 1, device=cut.device)
    return frame.where(torch.cat([cut.new_ones(1), cut]), 0).cummax(0).values


def published_quotas(found: Windows, there: Tensor, share: float = 0.5) -> Quotas:
    """Counts without a budget: int(m `share`) clusters of every set of m tokens, all tokens of a small set."""
    dynamic, static = (m.where(m <= _SMALL, (m.double() * share).long()) for m in sizes(found, there))
    return Quotas(dynamic, static, torch.zeros_like(there))


@dataclass(frozen=True)
class Merge:
    """What stays of a video, and what goes into it."""

    kept: Tensor  # [t, l] bool
    owner: Tensor  # [t, l] cell of the token that represents each one, -1 where none does
    dynamic: Tensor  # [t, l] bool, tokens that are not static
    static: Static


def prunevid(video: Video, found: Windows, quotas: Quotas) -> Merge:
    """Density peaks of each frame's dynamic tokens and of each window's static means, and what is nearest to them."""
    t, length, _ = video.shape
    static = merge_static(video, found, quotas, lambda count: torch.full_like(count, _NEIGHBOURS))
    dynamic = video.there & ~found.static
    score, square = peaks(video.rows, dynamic.long(), _NEIGHBOURS, _NEIGHBOURS)
    centre = best(score, quotas.dynamic, dynamic)
    cell = torch.arange(t * length, device=centre.device).view(t, length)
    owner = torch.where(centre, cell, cell[:, :1] + nearest(square, centre))
    owner = torch.where(dynamic, owner.where(centre.any(1, keepdim=True), -1), static.owner)
    return Merge(centre | static.kept, owner, dynamic, static)


def merged_rows(video: Video, merge: Merge, index: Tensor) -> Tensor:
    """[k, d] float32 rows of the kept tokens `index` [k], each the mean of its cluster."""
    slot = video.slots(index, merge.owner.where(merge.dynamic, -1).flatten())
    mean, count = averages(video.rows.flatten(0, 1), slot, len(index))
    own = video.rows.flatten(0, 1).index_select(0, video.cells(index)[0])
    return merge.static.merged(video, index, torch.where(count > 0, mean, own), None)


@final
@dataclass(frozen=True)
class PruneVid(PruningMethod):
    """Averages positions that stay still over a cluster of frames, and clusters the other tokens of every frame.

    Source: Huang et al., "PruneVid", arXiv:2412.16117, ACL 2025; Visual-AI/PruneVid, the merge before the language
    model, from its facts alone: there are no cases of the released code to compare with.
    Deviates: it has no budget; here the clusters of every set are its share of `keep` by largest remainder, where it
    takes half of the tokens and leaves sets of up to 14 as they are (`published_quotas`). What a still video leaves of
    the budget keeps unmerged the tokens that changed most. Fewer than four frames, on which it fails, are one cluster.
    Density peaks have no noise: of equal ones the earlier counts. A static token stands at its place in the window's
    first frame. Tokens that newlines are come last. The authors prune once more inside the language model.
    Cost: O(n l d), for l tokens a frame.
    """

    name: ClassVar[str] = "prunevid"
    title: ClassVar[str] = "PruneVid (merge)"
    source: ClassVar[str] = "arXiv:2412.16117"

    tau: float = 0.8
    share: float = 0.25  # of the frames that are the peaks of clusters

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        video = Video.of(tokens)
        found = windows(video, self.tau, self.share)
        merge = prunevid(video, found, exact_quotas(found, video.there, novelty(video), keep))
        index = video.index(merge.kept, keep)
        return video.merged(tokens, index, merge.owner, merged_rows(video, merge, index))
