"""V-CAST: more tokens for the frames where the video bends, and in a frame those that stand out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._video import Video, best, settled, similar, topped_up
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import ranking
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["VCast", "frame_quotas", "standing_out", "v_cast"]


def v_cast(video: Video, keep: int, temperature: float = 0.7, largest_remainder: bool = False) -> Tensor:
    """[t, l] bool: `keep` tokens of a video, as many of each frame as its curvature asks for."""
    means = video.frames
    weight = (_curvature(means) / temperature).softmax(0)
    quota = frame_quotas(weight, video.there.sum(1), keep, largest_remainder)
    score = standing_out(video, means)
    return topped_up(best(score, quota, video.there), score, keep, video.there)


def _curvature(means: Tensor) -> Tensor:
    """[t] float64, 0 ... 2: 1 - cosine of the steps to and from each frame's mean [t, d]; 1 at both ends."""
    tiny = torch.finfo(torch.float64).tiny
    direction = means / means.norm(dim=1, keepdim=True).clamp_min(tiny)
    if len(means) < 3:
        return torch.ones_like(means[:, 0])
    step = direction[1:] - direction[:-1]
    step = step / step.norm(dim=1, keepdim=True).clamp_min(1e-6)
    end = torch.ones_like(means[:1, 0])
    return torch.cat([end, settled(1 - (step[1:] * step[:-1]).sum(1)), end])


def frame_quotas(weight: Tensor, size: Tensor, keep: int, largest_remainder: bool = False) -> Tensor:
    """[t] whole numbers that add up to `keep`: one for each frame, and the rest by `weight` [t], rounded down.

    What rounding down leaves goes to the frame of the largest fraction until that is full, then to the next, as
    released; or, with `largest_remainder`, first one each in the order of the fractions. Fewer tokens than frames go to
    those of the largest weight.

    Args:
        size: [t] tokens of each frame, which are the most it gets.
    """
    weight = weight.where(size > 0, 0.0)
    by_weight = ranking(settled(weight).where(size > 0, -1.0))
    one = ((by_weight.argsort() < keep) & (size > 0)).long()
    rest = (size.sum().clamp_max(keep) - one.sum()).clamp_min(0)
    raw = weight / weight.sum().clamp_min(torch.finfo(torch.float64).tiny) * rest
    whole = (raw + 2.0**-30).floor()  # a whole number that rounding made smaller is one
    quota = one + torch.minimum(whole.long(), size - one)
    order = ranking(settled(raw - whole).where(quota < size, -1.0))
    if largest_remainder:
        open_ = (quota < size).index_select(0, order)
        extra = open_ & (open_.cumsum(0) <= size.sum().clamp_max(keep) - quota.sum())
        quota = quota.index_add(0, order, extra.long())
    room = (size - quota).index_select(0, order)
    left = size.sum().clamp_max(keep) - quota.sum()
    return quota.index_add(0, order, torch.minimum((left - room.cumsum(0) + room).clamp_min(0), room))


def standing_out(video: Video, means: Tensor) -> Tensor:
    """[t, l] float64: 1 - cosine with the frame's mean [t, d], plus the token's length, brought to 0 ... 1 in it."""
    length = video.lengths
    low = length.masked_fill(~video.there, torch.inf).amin(1, keepdim=True)
    span = length.masked_fill(~video.there, -torch.inf).amax(1, keepdim=True) - low
    return settled(1 - similar(video, means) + ((length - low) / (span + 1e-6)).nan_to_num(0.0))


@final
@dataclass(frozen=True)
class VCast(PruningMethod):
    """Gives more tokens to frames where the video changes course, and keeps outlying and long tokens in each frame.

    Source: "V-CAST", arXiv:2603.27650; xinyouu/V-CAST.
    Deviates: one frame, which the released code leaves whole, is pruned as any other. With fewer tokens than frames,
    where the released code keeps one of each, those of the largest weight keep one. All that rounding down leaves goes
    to one frame, as released, unless `largest_remainder`. Tokens that newlines are come last.
    Cost: O(n d).
    """

    name: ClassVar[str] = "v-cast"
    title: ClassVar[str] = "V-CAST"
    source: ClassVar[str] = "arXiv:2603.27650"

    temperature: float = 0.7
    largest_remainder: bool = False

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        video = Video.of(tokens)
        return video.selection(v_cast(video, keep, self.temperature, self.largest_remainder), keep)
