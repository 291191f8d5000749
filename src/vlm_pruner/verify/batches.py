"""Two prompts as one padded batch, and one row of what it answered."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["both", "row"]


def both(model: Any, one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Padded on the left, pictures behind one another, as processors give it.

    Args:
        one: ids [1, s] and what goes with them; `other` the same with another number of tokens.
    """
    length = max(one["input_ids"].shape[1], other["input_ids"].shape[1])
    end = model.generation_config.pad_token_id
    filling = end if end is not None else model.generation_config.eos_token_id
    filling = filling[0] if isinstance(filling, list) else filling or 0
    out: dict[str, Any] = {}
    for name in {**one, **other}:  # one of the pictures may have no tiles
        if name != "attention_mask":
            fill, there = filling if name == "input_ids" else 0, [each for each in (one, other) if name in each]
            parts = [_padded(name, inputs, length, fill) for inputs in there]
            out[name] = list(chain(*parts)) if isinstance(parts[0], list) else torch.cat(parts)
    sizes = [inputs["input_ids"].shape[1] for inputs in (one, other)]
    out["attention_mask"] = torch.stack([(torch.arange(length) >= length - size).long() for size in sizes])
    out["attention_mask"] = out["attention_mask"].to(out["input_ids"].device)
    return out


def _padded(name: str, inputs: dict[str, Any], length: int, filling: int) -> Any:
    """A tensor with its padding, or a list of numbers of every picture."""
    value = inputs[name]
    per_token = name == "input_ids" or name.endswith("token_type_ids")
    return pad(value, (length - value.shape[1], 0), value=filling) if per_token else value


def row(output: Any, index: int, length: int, new_tokens: int) -> Tensor:
    """[1, length + new_tokens] what row `index` said, without the padding in front of its prompt."""
    said: Tensor = output.sequences[index : index + 1]
    return said[:, said.shape[1] - length - new_tokens :]
