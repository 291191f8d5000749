"""Which prepared questions make a batch together, and the batch. A function of the questions alone.

Sums of floats depend on what else is in a batch, so answers are the same whoever computes them only if batches are.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["batches_of", "collate", "filler"]

Inputs = Mapping[str, Any]


def batches_of(inputs: Mapping[int, Inputs], most: int) -> list[list[int]]:
    """Numbers of `inputs` in batches of at most `most`: what fits together, shorter prompts first.

    Rows fit together if the processor gave them the same tensors, of the same shapes but for the number of pictures (or
    patches) and of tokens. So nothing of a picture is ever padded.
    """
    alike: dict[Hashable, list[int]] = {}
    for number, one in inputs.items():
        alike.setdefault(_kind(number, one), []).append(number)
    batches = []
    for numbers in alike.values():
        ordered = sorted(numbers, key=lambda number: (_length(inputs[number]), number))
        batches += [ordered[i : i + most] for i in range(0, len(ordered), most)]
    return batches


def collate(rows: Sequence[Inputs], fill: int) -> dict[str, Any]:
    """One batch of rows that fit together: [rows, longest] tokens padded on the left, pictures behind one another.

    Args:
        fill: the token in the places of padding, which nothing looks at.
    """
    if len(rows) == 1:
        return dict(rows[0])
    longest = max(map(_length, rows))
    made: dict[str, Any] = {}
    for name, first in rows[0].items():
        parts = [row[name] for row in rows]
        if _per_token(first, _length(rows[0])):
            value = fill if name == "input_ids" else 0
            parts = [pad(part, (longest - part.shape[1], 0), value=value) for part in parts]
        made[name] = torch.cat(parts)
    return made


def filler(model: Any) -> int:
    """The token of padding."""
    known = (model.generation_config.pad_token_id, model.generation_config.eos_token_id, 0)
    found = next(token for token in known if token is not None)
    return int(found[0] if isinstance(found, list) else found)


def _length(inputs: Inputs) -> int:
    return int(inputs["input_ids"].shape[1])


def _per_token(value: Tensor, length: int) -> bool:
    return value.shape == (1, length) and not value.is_floating_point()


def _kind(number: int, inputs: Inputs) -> Hashable:
    """Equal for what fits together. What holds anything but tensors fits to nothing."""
    if not all(isinstance(value, Tensor) and value.dim() for value in inputs.values()):
        return number
    length = _length(inputs)
    return tuple(
        (name, str(value.dtype), None if _per_token(value, length) else tuple(value.shape[1:]))
        for name, value in inputs.items()
    )
