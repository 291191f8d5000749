"""DTD, the differential token drop of TimeChat-Online: what did not change since the frame before goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._video import Video, best, deal, likeness, topped_up
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.methods.evs import novelty
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["DTD", "dtd"]


def dtd(video: Video, threshold: float, absolute: bool = True) -> Tensor:
    """[t, l] bool: what the released code keeps, as many tokens as it comes to.

    The first frame stays whole. Of the others go the tokens whose cosine with the one at their place one frame earlier
    is above `threshold`, or, where that is not `absolute`, the int(l threshold) most alike of every frame.
    """
    alike = likeness(video)
    first = torch.arange(video.shape[0], device=alike.device) == 0
    if absolute:
        return (first[:, None] | (alike <= threshold)) & video.there
    count = video.there.sum(1)
    gone = int(video.shape[1] * threshold)
    return best(-alike, count.where(first, (count - gone).clamp_min(0)), video.there)


@final
@dataclass(frozen=True)
class DTD(PruningMethod):
    """Keeps the first frame, and of the others what changed most since the frame before, overall or per frame.

    Source: Yao et al., "TimeChat-Online", arXiv:2504.17343, MM 2025; yaolinli/TimeChat-Online, drop by features.
    Deviates: a threshold (`dtd` gives that choice) leaves as many tokens as it comes to; the budget takes its place, as
    the most changed tokens of the video (`absolute`, which is then the choice of EVS), or as equal shares of every
    frame after the first. A budget below the first frame's size takes from it the tokens that least resemble its mean.
    Tokens that newlines are come last.
    Cost: O(n d).
    """

    name: ClassVar[str] = "dtd"
    title: ClassVar[str] = "TimeChat-Online (DTD)"
    source: ClassVar[str] = "arXiv:2504.17343"

    absolute: bool = True

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        video = Video.of(tokens)
        score, kept = novelty(video), torch.zeros_like(video.there)
        if not self.absolute:
            count = video.there.sum(1)
            later = count.masked_fill(torch.arange(len(count), device=count.device) == 0, 0)
            quota = deal(later, (keep - count[0]).clamp_min(0)) + (count - later)
            kept = best(score, quota, video.there)
        return video.selection(topped_up(kept, score, keep, video.there), keep)
