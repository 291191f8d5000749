"""EVS: drop the tokens that look like the token at their place one frame earlier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._video import Video, likeness, similar, topped_up
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["EVS", "novelty"]

_NOTHING_BEFORE = 255.0
_SAME = 1e-6


def novelty(video: Video) -> Tensor:
    """[t, l] float64: 1 - cosine of each token with the one at its place one frame earlier, kept or not.

    What differs by rounding alone has no novelty. Tokens with nothing before them, those of the first frame, have 255
    plus 1 - cosine with the mean of their frame, which puts them in an order.
    """
    change = (1 - likeness(video)).clamp_min(0.0)
    change = change.masked_fill(change < _SAME, 0.0)
    before = torch.cat([torch.zeros_like(video.there[:1]), video.there[:-1]])
    return change.where(before, _NOTHING_BEFORE + 1 - similar(video, video.frames))


@final
@dataclass(frozen=True)
class EVS(PruningMethod):
    """Keeps the first frame, and of the others the tokens that differ most from the same position one frame before.

    Source: NVIDIA, "Efficient Video Sampling", arXiv:2510.14624; the form of vLLM, which compares projected features
    where the paper compares pixels.
    Deviates: the released code never keeps less than one frame's tokens, so that a picture is not pruned; here a budget
    below that takes from the first frame the tokens that least resemble its mean. Changes below 1e-6 count as none, so
    that rounding does not order the tokens of a still video. Tokens that newlines are come last.
    Cost: O(n d).
    """

    name: ClassVar[str] = "evs"
    title: ClassVar[str] = "EVS"
    source: ClassVar[str] = "arXiv:2510.14624"

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        video = Video.of(tokens)
        score = novelty(video)
        return video.selection(topped_up(torch.zeros_like(video.there), score, keep, video.there), keep)
