"""Visual features that a decoder adds to its rows between layers: to those that are still there.

Qwen3-VL does so by a method of its own behind its first layers. Other families hand the decoder a table of features by
layer: those that come behind the first stage are taken out of it, and added by the layers' own hooks.
"""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor

from vlm_pruner.engine.forward import Prefill
from vlm_pruner.engine.rows import Kept

__all__ = ["add_here", "take_later", "wrap_deepstack"]


def wrap_deepstack(local: Any, original: Any) -> Any:
    """`_deepstack_process`, given the visual places and features that are left."""

    @functools.wraps(original)
    def wrapper(hidden_states: Tensor, visual_pos_masks: Tensor, visual_embeds: Tensor) -> Tensor:
        fwd = local.forward
        if fwd is not None and fwd.kept is not None:  # lengths would not tell: a ragged batch may be as long as before
            visual_pos_masks, visual_embeds = _left(visual_pos_masks, visual_embeds, fwd.kept)
        result: Tensor = original(hidden_states, visual_pos_masks, visual_embeds)
        return result

    return wrapper


def take_later(prefill: Prefill, kwargs: dict[str, Any], names: tuple[str, str], first: int) -> dict[str, Any]:
    """The arguments of the decoder without the features of layers behind `first`, which `prefill` has from now on.

    Args:
        names: arguments that hold the features by layer, and the mask [b, q, 1] of their places.
    """
    features, visual = (kwargs.get(name) for name in names)
    if features is None or visual is None:
        return kwargs
    prefill.added = {index: rows for index, rows in features.items() if index > first}
    prefill.visual = visual[..., 0]
    return {**kwargs, names[0]: {index: rows for index, rows in features.items() if index <= first}}


def add_here(prefill: Prefill, index: int, hidden: Tensor) -> Tensor:
    """The rows [b, k, d] that enter layer `index`, with what is to be added there."""
    if index not in prefill.added:
        return hidden
    assert prefill.visual is not None
    visual, rows = prefill.visual, prefill.added[index]
    if prefill.kept is not None:
        visual, rows = _left(visual, rows, prefill.kept)
    visual = visual.to(hidden.device)
    hidden = hidden.clone()
    hidden[visual] += rows.to(hidden.device, hidden.dtype)
    return hidden


def _left(visual: Tensor, rows: Tensor, kept: Kept) -> tuple[Tensor, Tensor]:
    """Mask [b, q] of visual places and their rows [n, d] -> the mask [b, k] of what is left, and its rows."""
    index = kept.index.to(visual.device)
    number = (visual.flatten().cumsum(0) - 1).view_as(visual)  # row of every place
    there = visual.gather(1, index)
    if kept.valid is not None:
        there = there & kept.valid.to(there.device)
    return there, rows[number.gather(1, index)[there].to(rows.device)]
