"""HoliTom: places that stay the same over a stretch of frames become one token, and the budget goes to the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._signals import SALIENCE, salience
from vlm_pruner.methods._video import Video, best, likeness, settled
from vlm_pruner.methods._windows import Quotas, Static, Windows, exact_quotas, merge_static, sizes
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["HoliTom", "holitom", "merged_rows", "released_quotas", "windows"]

_LONGEST = 1024  # frames of a window


def windows(video: Video, tau: float = 0.8) -> Windows:
    """The cut that saves most tokens, one mean in place of the tokens of every static place.

    A place is static in a window where the cosine of its tokens in each two neighbouring frames is above `tau`; a
    window of w frames with m static places saves m (w - 1) tokens. Of equal cuts the one with the shorter last window.
    """
    t, there = video.shape[0], video.there
    frame = torch.arange(t, device=there.device)
    same = (likeness(video)[1:] > tau) & there[1:] & there[:-1]
    run = frame[:-1, None] - torch.where(same, -1, frame[:-1, None]).cummax(0).values if t > 1 else same.long()
    saved = frame.new_zeros(t + 1)  # by the frames before each one
    starts = torch.zeros(t + 1, t, dtype=torch.bool, device=there.device)
    for end in range(t):
        steps = frame[: min(end + 1, _LONGEST)]  # window length - 1
        options = saved[: end + 1].flip(0)[: len(steps)]
        if end:
            options = options + steps * (run[end - 1] >= steps[:, None]).sum(1)
        choice = options.argmax().view(1)
        saved[end + 1] = options.index_select(0, choice).squeeze(0)
        begin = end - choice
        starts[end + 1] = starts.index_select(0, begin).squeeze(0).index_fill(0, begin, True)
    first = frame.where(starts[t], 0).cummax(0).values
    length = (first == first[:, None]).sum(1)
    if t == 1:
        return Windows(first, torch.zeros_like(there))
    since = run.index_select(0, (first + length - 2).clamp_min(0))  # steps without a change before the window's end
    return Windows(first, (since >= (length - 1)[:, None]) & (length > 1)[:, None])


def released_quotas(found: Windows, there: Tensor, retention: float) -> Quotas:
    """The released counts: rounded up for each frame, rounded for each window, at the share that saving allows."""
    dynamic, static = sizes(found, there)
    ratio = settled((retention * there.sum().double() / (dynamic.sum() + static.sum())).clamp_max(1.0))
    return Quotas(
        settled(dynamic * ratio).ceil().long(), settled(static * ratio).round().long(), torch.zeros_like(there)
    )


def holitom(video: Video, attention: Tensor, found: Windows, quotas: Quotas) -> tuple[Tensor, Static]:
    """[t, l] bool, which tokens of a video stay, and what becomes of its static places.

    Of a frame's dynamic tokens the best-attended stay, unmerged. Of a window's static places, averaged over it, density
    peaks stay in the window's first frame, and each of the others joins the nearest peak.

    Args:
        attention: [t, l].
    """
    static = merge_static(video, found, quotas, lambda count: count.where(count > 1, 7).clamp_max(7))
    return best(attention, quotas.dynamic, video.there & ~found.static) | static.kept, static


def merged_rows(video: Video, static: Static, index: Tensor, beta: float | None = 0.6) -> Tensor:
    """[k, d] float32 rows of the kept tokens `index` [k].

    That of a peak is `beta` times its own plus 1 - `beta` times the mean of what joined it; None: the mean of all.
    """
    own = video.rows.flatten(0, 1).index_select(0, video.cells(index)[0])
    return static.merged(video, index, own, beta)


@final
@dataclass(frozen=True)
class HoliTom(PruningMethod):
    """Averages what stays the same over a stretch of frames, and keeps the best-attended tokens of the rest.

    Source: Shao et al., "HoliTom", arXiv:2505.21334, NeurIPS 2025; cokeshao/HoliTom, the stage before the language
    model.
    Deviates: the counts per frame and window are the released shares by largest remainder, so that exactly `keep`
    tokens stay; the released code rounds each one, mostly up (`released_quotas`). What a still video leaves of the
    budget keeps its best-attended tokens unmerged. Density peaks have no noise: of equal ones the earlier counts, and
    the only peak of a window is the densest of seven neighbours. A static token stands at its place in the window's
    first frame. The split of dynamic tokens, with which the released code fails, is left out. Towers with [CLS] give
    its attention. Tokens that newlines are come last. Inside the language model the authors merge once more.
    Cost: O(n l d) at most, for l tokens a frame.
    """

    name: ClassVar[str] = "holitom"
    title: ClassVar[str] = "HoliTom"
    source: ClassVar[str] = "arXiv:2505.21334"
    wants: ClassVar[frozenset[Signal]] = SALIENCE

    tau: float = 0.8
    beta: float | None = 0.6  # None: plain means

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        video = Video.of(tokens)
        attention = video.signal(salience(self, tokens))
        found = windows(video, self.tau)
        quotas = exact_quotas(found, video.there, attention, keep)
        kept, static = holitom(video, attention, found, quotas)
        index = video.index(kept, keep)
        own = torch.arange(kept.numel(), device=kept.device).view_as(kept)
        owner = torch.where(kept & ~found.static, own, static.owner)
        return video.merged(tokens, index, owner, merged_rows(video, static, index, self.beta))
