"""Flash attention, by a stand-in with its rules, and a way to another backend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask
from transformers.modeling_flash_attention_utils import _is_packed_sequence

__all__ = ["FORMS", "STAND_IN", "attending"]

FORMS: list[int | None] = []  # dimensions of the masks it was given
STAND_IN = "flash_stand_in"


def _flash(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, position_ids: Tensor | None = None, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Padding mask or none, causal from the bottom right corner, packed sequences guessed from positions."""
    batch, _, queries, _ = query.shape
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    FORMS.append(None if attention_mask is None else attention_mask.dim())
    if attention_mask is None:
        assert not _is_packed_sequence(position_ids, batch), "gaps in the positions would be read as packed sequences"
        attention_mask = torch.ones(batch, key.shape[2], dtype=torch.bool)
    out = torch.zeros_like(query)
    for row in range(batch):
        columns = attention_mask[row, : key.shape[2]].bool().nonzero().flatten()
        own = attention_mask[row, -queries:].bool().nonzero().flatten() if queries > 1 else torch.arange(1)
        scores = query[row][:, own] @ key[row][:, columns].transpose(-1, -2) * scaling
        causal = torch.ones(len(own), len(columns), dtype=torch.bool).tril(len(columns) - len(own))
        out[row, :, own] = scores.masked_fill(~causal, -torch.inf).softmax(-1) @ value[row][:, columns]
    return out.transpose(1, 2), None


AttentionInterface.register(STAND_IN, _flash)
AttentionMaskInterface.register(STAND_IN, flash_attention_mask)


@contextmanager
def attending(model: Any, backend: str) -> Iterator[None]:
    """The decoder attends by another backend."""
    config = model.base_model.get_decoder().config
    before, config._attn_implementation = config._attn_implementation, backend
    try:
        yield
    finally:
        config._attn_implementation = before
