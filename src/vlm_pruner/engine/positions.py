"""Repacked positions: the sequence renumbered as if the dropped tokens had never been there.

One position per token (RoPE): every token moves down by the number of dropped tokens before it, and decoding goes on
from there. Three per token (M-RoPE): a picture, or one frame of a video, takes as many positions as the longer side of
its grid. Survivors keep their place inside it; what follows starts behind the last row and column that has a survivor,
the very rule by which these models number text after a picture. A frame without any survivor takes no position at all.
Time stays as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlm_pruner.engine.prompt import Prompt

__all__ = ["repack"]


def repack(position_ids: Tensor, survives: Tensor, prompt: Prompt) -> tuple[Tensor, Tensor]:
    """New positions of all places (those of dropped ones are meaningless), and how far each row has moved together.

    Args:
        position_ids: [b or 1, q], or [3, b or 1, q] (time, row, column).
        survives: [b, q] bool, True where a token is still there.

    Returns:
        positions in the shape of `position_ids` with b rows, and the shift [b, 1] of everything that follows.
    """
    dropped = prompt.visual.to(survives.device) & ~survives  # [b, q]
    position_ids = position_ids.to(survives.device)
    if position_ids.dim() == 2:
        closed = dropped.long()
    else:
        closed = _closed_by_run(position_ids[1:].expand(-1, len(survives), -1), survives, prompt)
    before = closed.cumsum(1) - closed
    return position_ids - before, closed.sum(1, keepdim=True)


def _closed_by_run(spatial: Tensor, survives: Tensor, prompt: Prompt) -> Tensor:
    """[b, q] positions that each picture or frame gives up, noted at its last token."""
    closed = torch.zeros_like(survives, dtype=torch.long)
    for image in prompt.images:
        slots, row = image.span.slots, image.span.row
        breaks = (slots[1:] != slots[:-1] + 1).nonzero().flatten() + 1
        for run in slots.tensor_split(breaks):
            first, last = int(run[0]), int(run[-1])
            place = spatial[:, row, first : last + 1]  # [2, n]
            start = place.min()
            left = place.masked_fill(~survives[row, first : last + 1], -1).max()  # -1: below every position
            closed[row, last] = place.max() - torch.maximum(left, start - 1)
    return closed
