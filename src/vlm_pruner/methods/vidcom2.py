"""VidCom2: the tokens least like their video and their frame, more of them in frames that stand out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._video import Video, best, settled, topped_up
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["VidCom2", "vidcom2"]

_WIDTHS = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)


def vidcom2(video: Video, retention: Tensor | float, keep: int | None = None, temperature: float = 0.01) -> Tensor:
    """[t, l] bool: which tokens of a video stay.

    Tokens are compared by the half of the channels that varies least. Frame t keeps round(l share_t) of its l tokens,
    share_t = min(retention (1 + p_t - 1 / T), 1), where p is the softmax over frames of how little their tokens
    resemble the video's centre; in a frame those stay that resemble the two centres least. The counts add up to about
    `retention` of the tokens. With `keep`, tokens that resemble them most are then dropped, or those that resemble them
    least added, anywhere in the video, until exactly `keep` stay.

    Source: arXiv:2505.14454, and the last step of vLLM's implementation.
    """
    alike_video, alike_frame = _resemblance(video)
    there, t = video.there, video.shape[0]
    count = there.sum(1)
    unlike = settled(-alike_video.masked_fill(~there, 0.0).sum(1) / count.clamp_min(1))
    unlike = unlike.where(count > 0, -torch.inf)
    p = ((unlike - unlike.max()) / temperature).softmax(0)
    share = (retention * (1 + p - 1 / t)).clamp_max(1.0)
    quota = (share.float() * count).round().clamp_min(1).long()  # half to even, in float32 as released
    score = -settled(alike_video + alike_frame)
    kept = best(score, quota, there)
    return kept if keep is None else topped_up(kept, score, keep, there)


def _resemblance(video: Video) -> tuple[Tensor, Tensor]:
    """[t, l] float64 each: resemblance to the video's centre and to the frame's, from 0 to 5."""
    steady = _steady(video)
    units, total, means = [], [], []
    for part, x in video.blocks():
        x = x.index_select(2, steady)
        x = x.div_(torch.linalg.vector_norm(x, dim=2, keepdim=True).clamp_min(1e-12))
        units.append(x)
        total.append(x.sum(1))
        means.append(total[-1] / video.there[part].sum(1, keepdim=True).clamp_min(1))
    centre = torch.cat(total).sum(0) / video.there.sum().clamp_min(1)
    return (
        torch.cat([_closeness(x, centre.expand(len(x), -1)) for x in units]),
        torch.cat([_closeness(x, mean) for x, mean in zip(units, means, strict=True)]),
    )


def _steady(video: Video) -> Tensor:
    """[d / 2] the channels of least variance over all tokens."""
    first = video.rows[0, 0].double()  # any shift will do; with this one, channels that never change have variance 0
    total = square = torch.zeros_like(first)
    for part, x in video.blocks():
        x.sub_(first).masked_fill_(~video.there[part][:, :, None], 0.0)
        total, square = total + x.sum((0, 1)), square + x.square_().sum((0, 1))
    n = video.there.sum().clamp_min(1)
    variance = square / n - (total / n).square()
    largest = variance.max().clamp_min(torch.finfo(torch.float64).tiny)
    return torch.argsort(settled(variance / largest), stable=True)[: max(1, len(first) // 2)].sort().values


def _closeness(unit: Tensor, centre: Tensor) -> Tensor:
    """[b, l] sum of five Gaussian kernels of the distances of `unit` [b, l, c] to `centre` [b, c]."""
    square = torch.linalg.vector_norm(unit, dim=2).square() + centre.square().sum(1, keepdim=True)
    square = square - 2 * torch.einsum("blc,bc->bl", unit, centre)
    widths = torch.stack([(-square / (2 * a)).exp() for a in _WIDTHS])
    total: Tensor = widths.sum(0)
    return total


@final
@dataclass(frozen=True)
class VidCom2(PruningMethod):
    """Keeps the tokens that resemble their video and their frame least, and more of them in frames that stand out.

    Source: Liu et al., "Video Compression Commander", arXiv:2505.14454, EMNLP 2025; xuyang-liu16/VidCom2, and vLLM's
    implementation for the exact count.
    Deviates: the released counts per frame add up to the budget only roughly; as in vLLM, the tokens that resemble the
    centres most are dropped or those that do least are added over the whole video. With fewer tokens than frames some
    frames keep none. Tokens that newlines are get no place of their own: they come last. `vidcom2` without `keep` gives
    the released count.
    Cost: O(n d).
    """

    name: ClassVar[str] = "vidcom2"
    title: ClassVar[str] = "VidCom2"
    source: ClassVar[str] = "arXiv:2505.14454"

    temperature: float = 0.01

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        video = Video.of(tokens)
        kept = vidcom2(video, keep / video.there.sum().clamp_min(1).double(), keep, self.temperature)
        return video.selection(kept, keep)
