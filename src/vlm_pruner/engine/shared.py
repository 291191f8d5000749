"""Decoder layers that read the keys of an earlier layer: their rows are their own, their columns those of that layer.

What a stage between the two drops stays visible in the second, which attends to what the first has stored.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vlm_pruner.engine.arguments import cut_queries, query_places
from vlm_pruner.engine.cache import PrunedLayer
from vlm_pruner.engine.forward import Forward
from vlm_pruner.engine.masks import Places
from vlm_pruner.engine.rows import Kept
from vlm_pruner.engine.stored import fit_mask
from vlm_pruner.engine.support import Parts
from vlm_pruner.errors import UnsupportedModelError

__all__ = ["follow_source"]


def follow_source(
    fwd: Forward, parts: Parts, index: int, level: int, hidden: Tensor, kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The keyword arguments of decoder layer `index`, which reads the keys of another one.

    Raises:
        UnsupportedModelError: flash attention, where the two layers see different rows; a prompt that ends with a
            picture, where the model goes on with its last rows alone.
    """
    source = parts.sources[index]
    cache, mask = kwargs.get(parts.layer_cache), kwargs.get("attention_mask")
    layer: Any = None if cache is None else cache.layers[source]
    pruned = isinstance(layer, PrunedLayer)
    prefill = fwd.prefill
    tag = ("source", source, 0 if prefill is None else len(prefill.levels), hidden.shape[1])
    if prefill is None or prefill.kept is None:
        if not pruned or (mask is None and layer.pruned_may_lag):
            return kwargs
        made = fit_mask(fwd, parts, index, mask, tag, fwd.places[layer.pruned_kind], None, True, hidden)
        return {**kwargs, "attention_mask": made}
    assert fwd.state is not None
    if pruned and index not in fwd.state.members[layer.pruned_kind]:
        fwd.state.members[layer.pruned_kind].append(index)
    stages = sum(site <= source for site in fwd.state.sites)
    stored = prefill.levels[stages - 1] if stages else None  # rows whose keys are there
    n, rows = hidden.shape[1], prefill.kept
    cut = n < rows.index.shape[1]  # by the model itself, and all its arguments with it
    if cut:
        if bool(prefill.prompt.visual[:, -n:].any()):
            raise UnsupportedModelError(f"{parts.name}: the last {n} places of a prompt that is pruned must be text")
        rows = Kept(rows.mask, rows.index[:, -n:], None if rows.valid is None else rows.valid[:, -n:])
    elif "flash" in parts.backend and stored is not rows:
        raise UnsupportedModelError(
            f"{parts.name}: layer {index} reads the keys of layer {source}, in front of which fewer rows were dropped: "
            'load the model with attn_implementation="sdpa" or "eager"'
        )
    past = 0 if layer is None else layer.get_seq_length() - fwd.length
    places = Places(query_places(fwd.length, rows, past, hidden), *_columns(fwd, layer, stored, past, hidden, mask))
    uneven = rows.valid is not None or fwd.state.ragged or (stored is not prefill.kept and not cut)
    made = fit_mask(fwd, parts, index, mask, tag, places, None if cut else rows, uneven, hidden)
    kwargs = {**kwargs, "attention_mask": made}
    if not cut:
        cut_queries(fwd, parts, level, kwargs)
    return kwargs


def _columns(
    fwd: Forward, layer: Any, stored: Kept | None, past: int | Tensor, hidden: Tensor, mask: Any
) -> tuple[Tensor, int | Tensor]:
    """[b, k] place + 1 of what the source has stored, and the place of column 0 of the mask."""
    if stored is not None and layer is not None:
        known = fwd.places[layer.pruned_kind]
        return known.key, known.offset
    if stored is not None:
        return query_places(fwd.length, stored, 0, hidden), 0
    if mask is not None:
        columns = mask.shape[-1]
    elif hasattr(layer, "max_cache_len"):  # all of it, unless the chunk is longer than a window
        columns = max(fwd.length, layer.max_cache_len)
    else:
        columns = fwd.length + past
    return torch.arange(1, columns + 1, device=hidden.device).expand(hidden.shape[0], -1), 0
