"""Layers that count places themselves: they scale their queries by them, or bias their logits by distances.

The places that such a module counts are those of the rows that are left. What it makes of them is set right.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vlm_pruner.engine.forward import Local, Prefill
from vlm_pruner.engine.support import Parts

__all__ = ["Counted"]


class Counted:
    """What the layers from `first` on count, for the hooks of one plan."""

    def __init__(self, parts: Parts, first: int, local: Local) -> None:
        self.parts, self.first, self.local = parts, first, local
        place = torch.zeros(1, 1, dtype=torch.long)
        self.scaled = {  # layers that scale queries by their places
            index
            for index in range(len(parts.layers))
            if parts.adapter.query_scale(parts.attention(index), place) is not None
        }

    def count(self, prefill: Prefill, index: int, hidden: Tensor, kwargs: dict[str, Any]) -> None:
        """Note what the queries of a layer lack that scales them by the places it counts itself, survivors only."""
        if prefill.kept is None or index not in self.scaled:
            return
        cache = kwargs.get(self.parts.layer_cache)
        seen = 0 if cache is None else cache.get_seq_length(index)
        counted = (torch.arange(hidden.shape[1], device=hidden.device) + seen).expand(len(hidden), -1)
        adapter, attention = self.parts.adapter, self.parts.attention(index)
        true = adapter.query_scale(attention, prefill.kept.index.to(hidden.device) + prefill.past)
        made = adapter.query_scale(attention, counted)
        assert true is not None
        assert made is not None
        prefill.scales[index] = true / made

    def queries_post(self, index: int, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        """Behind the query projection of such a layer, or the norm of its heads."""
        scale = self._scale(index)
        if scale is None:
            return None
        return (output * scale.view(*scale.shape, *[1] * (output.dim() - 2))).to(output.dtype)

    def _scale(self, index: int) -> Tensor | None:
        """[b, k] what the queries of layer `index` lack in the forward that is going on."""
        return None if self.local.prefill is None else self.local.prefill.scales.get(index)

    def install(self, hook: Callable[[Any], None], wrap: Callable[..., None]) -> None:
        """Hooks on what attention modules make of places that they count themselves."""
        for index in range(self.first, len(self.parts.layers)):
            attention = self.parts.attention(index)
            if index in self.scaled:
                post = functools.partial(self.queries_post, index)
                hook(getattr(attention, self.parts.adapter.scaled).register_forward_hook(post))
            if self.parts.measures(index):
                wrap(self.parts.adapter.distances(attention), "forward", functools.partial(self.measured, index))

    def measured(self, index: int, original: Any) -> Any:
        """The part of a layer that measures distances: between the places that rows had, once some are gone."""
        part = self.parts.adapter.distances(self.parts.attention(index))

        def wrapper(states: Tensor, query: Tensor, key: Tensor) -> Any:
            fwd = self.local.forward
            if fwd is None or index not in fwd.apart:
                return original(states, query, key)
            places = fwd.apart[index]
            bias = self.parts.adapter.distance_bias(part, states, places.query, places.key)
            scale = self._scale(index)  # of queries, which the module gives to all that is on its logits
            return bias if scale is None else (bias * scale[:, None, :, None]).to(bias.dtype)

        return wrapper
