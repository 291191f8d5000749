"""Forms of VLM-Pruner for videos that were tried, and from which `vlm-pruner-video` was chosen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vlm_pruner.methods._video import Video, settled
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.methods.evs import novelty
from vlm_pruner.methods.vidcom2 import _resemblance
from vlm_pruner.methods.vlm_pruner import VLMPruner
from vlm_pruner.methods.vlm_pruner_video import VLMPrunerVideo
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["VARIANTS", "Parts", "PerFrame", "PerShot"]


@dataclass(frozen=True)
class PerFrame(PruningMethod):
    """VLM-Pruner in every frame by itself; frames share the budget evenly, or by how much changes in them.

    Args:
        change: share of the budget that goes to frames by their mean novelty; the rest is dealt out evenly.
        shots: whole shots instead of frames: a cut where the means of two frames have a cosine below it.
    """

    name: ClassVar[str] = "vlm-pruner-per-frame"
    title: ClassVar[str] = "VLM-Pruner, frame by frame"
    source: ClassVar[str] = "experiment"
    wants: ClassVar[frozenset[Signal]] = frozenset({Signal.KEYS})

    change: float = 0.0
    shots: float | None = None
    temporal_scale: float = 1.0

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        video = Video.of(tokens)
        frame = tokens.coordinates()[:, 0].round().long()
        part = frame if self.shots is None else _shots(video, self.shots)[frame]
        sizes = torch.bincount(part)
        weight = sizes.double() / sizes.sum()
        if self.change:
            new = video.signal(torch.zeros(len(tokens))) + novelty(video).clamp_max(1.0)
            moved = torch.zeros(len(sizes), dtype=torch.float64).index_add(0, _of_frames(part, frame), new.mean(1))
            weight = (1 - self.change) * weight + self.change * moved / moved.sum()
        quota = _deal(weight, sizes, keep)
        index: list[Tensor] = []
        rows: list[Tensor] = []
        source = torch.full((len(tokens),), -1)
        inner = VLMPruner(temporal_scale=self.temporal_scale)
        for number, count in enumerate(quota):
            mine = (part == number).nonzero().flatten()
            if not count:
                continue
            made = inner.select(taken(tokens, mine), count)
            assert made.features is not None
            assert made.source is not None
            source[mine] = made.source + sum(len(i) for i in index)
            index.append(mine[made.index])
            rows.append(made.features)
        return _sorted(torch.cat(index), torch.cat(rows), source)


@dataclass(frozen=True)
class PerShot(PruningMethod):
    """One growth over the whole video that starts from pivots of every shot."""

    name: ClassVar[str] = "vlm-pruner-shots"
    title: ClassVar[str] = "VLM-Pruner, pivots per shot"
    source: ClassVar[str] = "experiment"
    wants: ClassVar[frozenset[Signal]] = frozenset({Signal.KEYS})

    cut: float = 0.0
    pivots: int = 4

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        shot = _shots(Video.of(tokens), self.cut)
        each = max(1, min(self.pivots, keep // int(shot.max() + 1)))
        frame = tokens.coordinates()[:, 0].round().long()
        part = shot[frame]
        starts = [
            mine[VLMPruner(merge=False, pivots=each).select(taken(tokens, mine), min(each, len(mine))).index]
            for number in range(int(shot.max()) + 1)
            if len(mine := (part == number).nonzero().flatten())
        ]
        return VLMPruner().select_from(tokens, torch.cat(starts)[:keep], keep)


@dataclass(frozen=True)
class Parts(PruningMethod):
    """VLM-Pruner among some candidates, `pool` of them for each token that is kept: time before space.

    Args:
        by: candidates are those that changed most ("change"), or resemble the video and their frame least ("unlike").
        average: a candidate enters as the mean of itself and the tokens after it that did not make the pool.
    """

    name: ClassVar[str] = "vlm-pruner-pool"
    title: ClassVar[str] = "VLM-Pruner among what changed"
    source: ClassVar[str] = "experiment"
    wants: ClassVar[frozenset[Signal]] = frozenset({Signal.KEYS})

    pool: float = 3.0
    by: str = "change"
    average: bool = False
    temporal_scale: float = 1.0

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        video = Video.of(tokens)
        t, length, _ = video.shape
        count = min(len(tokens), max(keep, round(self.pool * keep)))
        score = novelty(video) if self.by == "change" else -sum(_resemblance(video), torch.zeros(()))
        score = settled(score.masked_fill(~video.there, -torch.inf))
        order = torch.argsort(score.flatten(), descending=True, stable=True)
        fresh = torch.zeros(t, length, dtype=torch.bool).flatten().index_fill(0, order[:count], True).view(t, length)
        mine = video.index(fresh, count)
        part = taken(tokens, mine)
        if self.average:
            part = dataclasses.replace(part, features=_averaged(tokens, video, fresh, mine))
        made = VLMPruner(temporal_scale=self.temporal_scale).select(part, keep)
        assert made.features is not None
        assert made.source is not None
        source = torch.full((len(tokens),), -1)
        source[mine] = made.source
        return Selection(mine[made.index], features=made.features, source=source)


def _averaged(tokens: VisualTokens, video: Video, fresh: Tensor, mine: Tensor) -> Tensor:
    """[count, d] means over each candidate and what follows it at its place up to the next one."""
    t, length, width = video.shape
    head = torch.where(fresh, torch.arange(t)[:, None], -1).cummax(0).values  # frame of the candidate before
    slot = (head.clamp_min(0) * length + torch.arange(length)).flatten()
    use = ((head >= 0) & video.there).flatten()
    total = torch.zeros(t * length, width).index_add(0, slot[use], video.rows.flatten(0, 1)[use].float())
    size = torch.zeros(t * length).index_add(0, slot[use], torch.ones(int(use.sum())))
    cell, placed = video.cells(mine)
    mean = total[cell] / size[cell].clamp_min(1)[:, None]
    return torch.where(placed[:, None], mean.to(tokens.features.dtype), tokens.features[mine])


def taken(tokens: VisualTokens, index: Tensor) -> VisualTokens:
    """The same of some tokens only."""
    keys = None if tokens.keys is None else tokens.keys.index_select(1, index)
    place = tokens.coordinates()[index]
    return dataclasses.replace(tokens, features=tokens.features[index], keys=keys, position=place)


def _shots(video: Video, cut: float) -> Tensor:
    """[t] number of the shot of every frame: a cut where the means of two frames, less that of all, point apart."""
    mean = torch.nn.functional.normalize(video.frames - video.frames.mean(0), dim=1)
    new = settled((mean[1:] * mean[:-1]).sum(1)) < cut
    return torch.cat([torch.zeros(1, dtype=torch.long), new.long().cumsum(0)])


def _of_frames(part: Tensor, frame: Tensor) -> Tensor:
    """[t] part of every frame."""
    return torch.stack([part[frame == f][0] for f in range(int(frame.max()) + 1)])


def _deal(weight: Tensor, sizes: Tensor, keep: int) -> list[int]:
    """Whole quotas by largest remainder, none above its size."""
    quota = torch.zeros_like(sizes)
    while (left := keep - int(quota.sum())) > 0:
        open_ = quota < sizes
        raw = torch.where(open_, weight, 0.0)
        raw = raw / raw.sum() * left
        step = torch.minimum(raw.floor().long(), sizes - quota)
        if not int(step.sum()):
            rank = torch.argsort(torch.where(open_, raw, -1.0), descending=True, stable=True)[:left]
            step = torch.zeros_like(sizes).index_fill(0, rank, 1) * open_
        quota += step
    return [int(q) for q in quota]


def _sorted(index: Tensor, rows: Tensor, source: Tensor) -> Selection:
    index, order = index.sort()
    slot = order.argsort()
    return Selection(index, features=rows[order], source=torch.where(source >= 0, slot[source.clamp_min(0)], -1))


VARIANTS: dict[str, Callable[[], PruningMethod]] = {
    "as for pictures": VLMPruner,
    "temporal scale 0": lambda: VLMPruner(temporal_scale=0.0),
    "temporal scale 4": lambda: VLMPruner(temporal_scale=4.0),
    "pivots per shot": PerShot,
    "one pivot a frame": lambda: PerShot(cut=2.0, pivots=1),
    "shot by shot": lambda: PerFrame(shots=0.0),
    "frame by frame": lambda: VLMPrunerVideo(buffer=0),
    "frame by frame, half the budget by change": lambda: PerFrame(change=0.5),
    "frame by frame, budget by change": lambda: PerFrame(change=1.0),
    "temporal buffer of a frame": VLMPrunerVideo,
    "temporal buffer of two frames": lambda: VLMPrunerVideo(buffer=2),
    "temporal buffer of all frames": lambda: VLMPrunerVideo(buffer=64),
    "temporal buffer, temporal scale 0": lambda: VLMPrunerVideo(temporal_scale=0.0),
    "temporal buffer, temporal scale 4": lambda: VLMPrunerVideo(temporal_scale=4.0),
    "3 candidates a token, by change": Parts,
    "3 candidates a token, by change, averaged over time": lambda: Parts(average=True),
    "3 candidates a token that stand out": lambda: Parts(by="unlike"),
}
"""What it is -> the method. `vlm-pruner-video` has the form "temporal buffer of a frame"."""
