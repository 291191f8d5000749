"""Repacked positions: the sequence renumbered as if the dropped tokens had never been there.

One position per token (RoPE): every token moves down by the number of dropped tokens before it, and decoding goes on
from there. Three per token (M-RoPE): a picture, or one frame of a video, takes as many positions as the longer side of
its grid. Survivors keep their place inside it; what follows starts behind the last row and column that has a survivor,
the very rule by which these models number text after a picture. A frame without any survivor takes no position at all.
Time stays as it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vlm_pruner.engine.arguments import Arguments
from vlm_pruner.engine.cache import first_pruned
from vlm_pruner.engine.forward import Forward, Local, Prefill
from vlm_pruner.engine.prompt import Prompt
from vlm_pruner.engine.rows import Kept
from vlm_pruner.engine.support import Parts
from vlm_pruner.errors import UnsupportedModelError

__all__ = ["Repacking", "repack"]


class Repacking:
    """The hooks on a decoder's `rotary_emb`."""

    def __init__(self, parts: Parts, local: Local) -> None:
        self.parts, self.local = parts, local

    def install(self, hook: Callable[[Any], None]) -> None:
        """Put the hooks on.

        Raises:
            UnsupportedModelError: positions of this model cannot be closed up.
        """
        rotary = getattr(self.parts.text, "rotary_emb", None)
        if rotary is None or self.parts.adapter.canvas:
            why = "pictures are numbered with what surrounds them" if rotary else "the decoder has no rotary_emb"
            raise UnsupportedModelError(f"{self.parts.name}: positions cannot be repacked, {why}")
        hook(rotary.register_forward_pre_hook(self.pre, with_kwargs=True))
        hook(rotary.register_forward_hook(self.post, with_kwargs=True))

    def pre(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
        """Positions of tokens behind a repacked image: closed up by what was dropped in earlier forwards."""
        fwd = self.local.forward
        if fwd is None or self.local.quiet or fwd.state is None:
            return None
        first = first_pruned(fwd.cache)
        if first is None or first.pruned_shift is None:
            return None
        return _with_positions(args, kwargs, _positions(args, kwargs) - first.pruned_shift)

    def post(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Note the tables of a prefill and what they were made of, to make them again after selection."""
        if self.local.prefill is not None and not self.local.quiet:
            self.local.prefill.rotary.append((output, args, kwargs))

    def entered(self, prefill: Prefill, index: int, cache: Any) -> None:
        """In front of a layer: its cache holds from now on how far everything behind the pictures has moved."""
        if prefill.shift is None or cache is None:
            return
        layer = cache.layers[self.parts.sources[index]]
        if layer is first_pruned(cache):
            layer.pruned_shift = prefill.shift

    def again(self, fwd: Forward, prefill: Prefill, kept: Kept) -> None:
        """Make the tables of a prefill again, for the positions of what is left."""
        rotary: Any = self.parts.text.rotary_emb
        for output, args, kwargs in prefill.rotary:
            positions, shift = repack(_positions(args, kwargs), kept.mask, prefill.prompt)
            args, kwargs = _with_positions(args, kwargs, positions)
            self.local.quiet = True
            try:
                first = output[0] if isinstance(output, tuple) else output
                fwd.once(first, "repacked", functools.partial(rotary, *args, **kwargs))
            finally:
                self.local.quiet = False
            before = getattr(first_pruned(fwd.cache), "pruned_shift", None)
            prefill.shift = shift if before is None else shift + before


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


def _positions(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    positions: Tensor = kwargs["position_ids"] if "position_ids" in kwargs else args[1]
    return positions


def _with_positions(args: tuple[Any, ...], kwargs: dict[str, Any], positions: Tensor) -> Arguments:
    if "position_ids" in kwargs:
        return args, {**kwargs, "position_ids": positions}
    return (args[0], positions, *args[2:]), kwargs
