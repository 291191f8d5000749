"""Answers of a given length, free or word by word as another run said, with the raw logits of every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vlm_pruner.adapters import adapter_for

__all__ = ["answer", "forced"]


def answer(model: Any, inputs: dict[str, Any], new_tokens: int, **options: Any) -> Any:
    """The greedy answer, `sequences` [b, s + new_tokens] and `logits`, each [b, vocabulary]."""
    if hasattr(model.base_model, "rope_deltas"):
        model.base_model.rope_deltas = None  # of an earlier prompt
    pictures = list(adapter_for(model.config.model_type).placeholders(model.config).values())
    with torch.no_grad():
        return model.generate(
            **inputs, do_sample=False, max_new_tokens=new_tokens, min_new_tokens=new_tokens, output_logits=True,
            return_dict_in_generate=True, suppress_tokens=pictures, **options,
        )  # fmt: skip


def forced(model: Any, inputs: dict[str, Any], said: Tensor, new_tokens: int) -> Any:
    """The same with the words of `said` [b, s + new_tokens], so that one near tie does not part two runs."""

    def only(index: int, ids: Tensor) -> list[int]:
        return [int(said[index, len(ids)])]

    return answer(model, inputs, new_tokens, prefix_allowed_tokens_fn=only)
