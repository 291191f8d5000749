"""The lower end of the scale: image tokens that nobody may look at from some layer on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vlm_pruner.engine.release import cache_name
from vlm_pruner.errors import PlanError

__all__ = ["blinded"]


@contextmanager
def blinded(model: Any, layer: int, visual: Tensor) -> Iterator[None]:
    """Inside, rows that come after the pictures attend to no image token in decoder layers >= `layer`.

    Nothing is pruned: this is what an answer is worth when all evidence has to be read below `layer`. The pictures
    themselves must have been prefilled before, so that the first chunk inside is the question.

    Args:
        visual: [n] bool, True at the columns of the cache that hold image tokens, the same in every row.

    Raises:
        PlanError: a chunk without a mask of its own has more than one query.
    """
    decoder = model.base_model.get_decoder()
    name = cache_name(decoder.layers[layer])

    def hide(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        hidden = args[0] if args else kwargs["hidden_states"]
        keys = kwargs[name].get_seq_length(module.self_attn.layer_idx) + hidden.shape[1]
        return args, kwargs | {"attention_mask": _without(kwargs.get("attention_mask"), visual, hidden, keys)}

    handles = [block.register_forward_pre_hook(hide, with_kwargs=True) for block in decoder.layers[layer:]]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _without(mask: Tensor | None, visual: Tensor, hidden: Tensor, keys: int) -> Tensor:
    """[b, 1, q, keys] `mask` with the image columns closed; None stands for a single query that sees everything."""
    if mask is None:
        if hidden.shape[1] != 1:
            raise PlanError(f"cannot blind {hidden.shape[1]} queries without an attention mask")
        mask = torch.ones(hidden.shape[0], 1, 1, keys, dtype=torch.bool, device=hidden.device)
    closed = torch.zeros(keys, dtype=torch.bool, device=mask.device)
    closed[: len(visual)] = visual
    if mask.dtype == torch.bool:
        return mask & ~closed
    return mask.masked_fill(closed, torch.finfo(mask.dtype).min)
