"""VLM-Pruner for videos: frame after frame, each grows from what the frame before has kept."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.errors import PlanError
from vlm_pruner.methods._video import Video, similar, topped_up
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.methods.vlm_pruner import VLMPruner, directions
from vlm_pruner.ops import GrowthRule, farthest_points, grow, screen
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["VLMPrunerVideo"]


@final
@dataclass(frozen=True)
class VLMPrunerVideo(PruningMethod):
    """VLM-Pruner's growth with a temporal buffer: a frame adds what neither it nor the frame before has shown.

    Frames share the budget evenly. In the first, tokens grow from pivots that are mutually distant. In every later one
    they grow from the tokens kept of the frame before, which lie `temporal_scale` away in time: what stays as it was is
    redundant and enters last. Dropped tokens are folded into the most similar survivor of the whole video.

    Args:
        buffer: frames before a frame whose kept tokens its growth starts from.
        temporal_scale: distance between consecutive frames in units of one token's width.
        pivots, channels, spatial_weight, threshold, threshold_step, token_batch, self_weight, merge: as `vlm-pruner`.

    Source: VLM-Pruner, arXiv:2512.02700, one frame at a time; that a frame is judged by what was kept of the one before
    is this library's. docs/offline_video.md has the forms that were tried.
    Deviates from VLM-Pruner: pivots are mutually distant features, so that nothing but the projector's output is read,
    before the language model. Tokens that newlines are come last.
    Cost: O(n keep / t channels) for t frames.

    Raises:
        PlanError: a parameter outside its range.
    """

    name: ClassVar[str] = "vlm-pruner-video"
    title: ClassVar[str] = "VLM-Pruner for videos (ours)"
    source: ClassVar[str] = "this library, 2026"

    buffer: int = 1
    temporal_scale: float = 1.0
    pivots: int = 4
    channels: int = 256
    spatial_weight: float = 0.5
    threshold: float = 0.8
    threshold_step: float = 0.1
    token_batch: int = 16
    self_weight: float = 0.3
    merge: bool = True

    def __post_init__(self) -> None:
        if self.buffer < 0:
            raise PlanError(f"buffer={self.buffer} must be at least 0")
        self._folding()

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        video = Video.of(tokens)
        kept = self._grown(video, tokens.grid, keep)
        score = -similar(video, video.frames).masked_fill(~video.there, 1.0)
        index = video.index(topped_up(kept, score, keep, video.there), keep)
        return dataclasses.replace(self._folding().select_from(tokens, index, keep), order=None)

    def _folding(self) -> VLMPruner:
        """What folds dropped tokens into a kept set; refuses parameters outside their range."""
        return VLMPruner(
            self.pivots, self.channels, self.spatial_weight, self.threshold, self.threshold_step, self.token_batch,
            self.self_weight, self.merge, temporal_scale=self.temporal_scale,
        )  # fmt: skip

    def _grown(self, video: Video, grid: tuple[int, int, int] | None, keep: int) -> Tensor:
        """[t, l] bool: the tokens of every frame that grew, about keep / t of each."""
        t, length, width = video.shape
        mean = video.frames.to(video.rows.dtype)[:, None]  # a place without a token is like its frame: it enters last
        rows = torch.where(video.there[..., None], video.rows, mean)
        unit = screen([rows.reshape(-1, width)], self.channels).view(t, length, -1)
        down, across = _sides(grid, length)
        raster = torch.arange(length, device=rows.device)
        plane = torch.stack([raster // across, raster % across], 1).float()  # [l, 2]
        reach = torch.full(
            (1,), math.hypot(down, across, self.temporal_scale * min(self.buffer, t - 1)), device=rows.device
        )
        rule = GrowthRule(self.spatial_weight, self.threshold, self.threshold_step, self.token_batch, True)
        before: list[tuple[int, Tensor]] = []  # frames and the places that they kept
        kept = torch.zeros(t, length, dtype=torch.bool, device=rows.device)
        for frame in range(t):
            quota = min(length, (frame + 1) * keep // t - frame * keep // t)
            if not quota:
                continue
            seen = before[-self.buffer :] if self.buffer else []
            start = sum(len(places) for _, places in seen)
            if start:
                pivots = torch.arange(start, device=rows.device)[None]
            else:
                pivots = farthest_points([directions(rows[frame])[None]], min(self.pivots, quota))
            parts = [*seen, (frame, raster)]
            place = torch.cat([self._placed(plane[i], f - frame) for f, i in parts])
            both = torch.cat([unit[f][i] for f, i in parts])
            order = grow(both[None], place[None], reach, pivots, start + quota, rule).order[0, start:]
            places = order - start
            kept[frame] = kept[frame].index_fill(0, places, True)
            before.append((frame, places))
        return kept & video.there

    def _placed(self, plane: Tensor, frames: int) -> Tensor:
        """[m, 3] places of tokens that lie so many frames away."""
        time = torch.full_like(plane[:, :1], frames * self.temporal_scale)
        return torch.cat([time, plane], 1)


def _sides(grid: tuple[int, int, int] | None, length: int) -> tuple[int, int]:
    """Rows and columns of a frame; tokens without a grid are one row."""
    return (1, length) if grid is None or grid[1] * grid[2] != length else (grid[1], grid[2])
