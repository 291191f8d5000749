"""DyCoke, temporal stage: of four frames one stays whole, the others keep what differs from the one before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._video import Video, best, deal, likeness, similar, topped_up
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["DyCoke", "difference", "released_quotas"]


def difference(video: Video) -> Tensor:
    """[t, l] float64: how little each token resembles what its frame is compared with, as a negative cosine.

    Frame 4 g + 2 is compared with frame 4 g, frames of odd number with the one before, place by place; frame 4 g, which
    is whole as long as the budget allows it, with its own mean.
    """
    t = video.shape[0]
    number = torch.arange(t, device=video.there.device)[:, None]
    alike = likeness(video).where(number % 2 == 1, similar(video, video.frames))
    return -(likeness(video, 2).where(number % 4 == 2, alike) if t > 2 else alike)


def released_quotas(frames: int, length: int, k: float) -> list[int]:
    """What the released code keeps of each frame with a share `k` merged away.

    It leaves frame 2 of the last group of four whole, and loses the last frame of an odd number.
    """
    few = int((1 - k) * length)
    quotas = [few if t % 2 or (t % 4 == 2 and t - 2 < frames - 4) else length for t in range(frames)]
    return [*quotas[:-1], 0] if frames % 2 else quotas


@final
@dataclass(frozen=True)
class DyCoke(PruningMethod):
    """Keeps every fourth frame whole, and spends the rest of the budget on what changed in the three frames after it.

    Source: Tao et al., "DyCoke", arXiv:2411.15024, CVPR 2025; KD-TAO/DyCoke, the stage before the language model.
    Deviates: the budget sets how much of the reduced frames stays, the same of each; the released code takes a share,
    never keeps less than a quarter, leaves the last group half reduced, loses the last frame of an odd number, and
    fails below five frames (`released_quotas`). Below a quarter the whole frames share the budget, and keep what least
    resembles their mean. Kept tokens are in raster order. Tokens that newlines are come last.
    Cost: O(n d).
    """

    name: ClassVar[str] = "dycoke"
    title: ClassVar[str] = "DyCoke (temporal)"
    source: ClassVar[str] = "arXiv:2411.15024"

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        video = Video.of(tokens)
        count, score = video.there.sum(1), difference(video)
        whole = count.where(torch.arange(len(count), device=count.device) % 4 == 0, 0)
        quota = deal(whole, keep) + deal(count - whole, (keep - whole.sum()).clamp_min(0))
        kept = best(score, quota, video.there)
        return video.selection(topped_up(kept, score, keep, video.there), keep)
