"""Whole frames instead of tokens: what every method for videos has to beat. Known to the benchmark alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["FRAMES", "RandomFrames", "UniformFrames"]


def whole_frames(tokens: VisualTokens, order: Tensor, keep: int) -> Selection:
    """The tokens of the frames that come first in `order` [t]; of the last of them as many as fit, evenly spread."""
    frame = tokens.coordinates()[:, 0].round().long().cpu()
    taken: list[Tensor] = []
    left = keep
    for number in order.tolist():
        mine = (frame == number).nonzero().flatten()
        count = min(left, len(mine))
        taken.append(mine[torch.arange(count) * len(mine) // max(1, count)])
        left -= count
        if not left:
            break
    return Selection(torch.cat(taken).sort().values.to(tokens.device))


def _frames(tokens: VisualTokens) -> int:
    return int(tokens.coordinates()[:, 0].max()) + 1


@final
@dataclass(frozen=True)
class UniformFrames(PruningMethod):
    """As many frames as the budget has room for, at equal distances in time."""

    name: ClassVar[str] = "uniform-frames"
    title: ClassVar[str] = "Uniform frames"
    source: ClassVar[str] = "baseline"

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        t = _frames(tokens)
        wanted = max(1, min(t, -(-keep * t // len(tokens))))
        evenly = (2 * torch.arange(wanted) + 1) * t // (2 * wanted)
        rest = torch.tensor([f for f in range(t) if f not in evenly.tolist()], dtype=torch.long)
        return whole_frames(tokens, torch.cat([evenly, rest]), keep)


@final
@dataclass(frozen=True)
class RandomFrames(PruningMethod):
    """As many frames as the budget has room for, drawn by lot."""

    name: ClassVar[str] = "random-frames"
    title: ClassVar[str] = "Random frames"
    source: ClassVar[str] = "baseline"

    seed: int = 0

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        lots = torch.Generator().manual_seed(self.seed)
        return whole_frames(tokens, torch.randperm(_frames(tokens), generator=lots), keep)


FRAMES: dict[str, PruningMethod] = {"uniform-frames": UniformFrames(), "random-frames": RandomFrames()}
"""By the label that results give them."""
