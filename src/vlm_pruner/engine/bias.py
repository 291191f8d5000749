"""Survivors that count for many: log m on the logit of a row that is the mean of m rows.

A query that meets m equal keys gives them m times the weight of one: softmax weight m exp(s q k) = exp(s q k + log m).
So a survivor into which others were merged gets log m on its logit, for every query, in every layer from its stage on,
at prefill and in decoding. That is exact where the merged keys and values are equal.

The number is kept with the entries of the cache, and added where a layer attends: into the mask under sdpa and eager
attention, as a bias of flex attention, and under flash attention, which takes neither, in one more column of queries
and keys: s (q, 1) (k, b / s) = s q k + b.
"""

from __future__ import annotations

import functools
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vlm_pruner.engine.cache import PrunedLayer
from vlm_pruner.engine.forward import Forward, Prefill
from vlm_pruner.engine.release import unseen
from vlm_pruner.engine.rows import Kept
from vlm_pruner.engine.support import Parts
from vlm_pruner.engine.tap import around, can_be_tapped
from vlm_pruner.errors import PlanError
from vlm_pruner.plan import PrunePlan

__all__ = ["LogMass", "attend_with", "augmented"]

_COLUMNS = 8  # kernels want heads of a multiple of 8
_WINDOWS = {"sliding_attention", "chunked_attention", "hybrid_sliding"}


class LogMass:
    """The stages of one plan with `bias="log-mass"`, on the layers behind the first of them."""

    def __init__(self, parts: Parts, plan: PrunePlan, local: Any) -> None:
        self.parts, self.local = parts, local
        self.sites = [stage.site for stage in plan.stages]
        self.first = next((stage.site for stage in plan.stages if stage.bias), len(parts.layers))
        behind = range(self.first, len(parts.layers))
        self.layers = [index for index in behind if not parts.follows(index)]  # a recurrence has no logits

    def check(self) -> None:
        """Raise where layers behind the first stage cannot be given a bias.

        Raises:
            PlanError: names the layer.
        """
        for index in self.layers:
            attention, window = self.parts.attention(index), self.parts.kind(index) in _WINDOWS
            if window or not self.parts.makes_keys(index) or attention is None or not can_be_tapped(attention):
                why = "has a window" if window else "takes no bias"
                raise PlanError(f"bias='log-mass': decoder layer {index} of this {self.parts.name} model {why}")

    def install(self, undo: ExitStack) -> None:
        """Put the bias onto every layer behind the first stage; `undo` takes it off."""
        for index in self.layers:
            removed = around(self.parts.attention(index), functools.partial(self._attend, index))
            assert removed is not None
            undo.callback(removed)

    def chosen(self, prefill: Prefill, kept: Kept) -> None:
        """A stage has chosen: note the logarithm of what every row of the chunk that is left stands for."""
        device = kept.mask.device
        by_place = torch.zeros(kept.mask.shape, device=device)
        for image in prefill.prompt.images:
            if image.mass is not None:
                slots = image.span.slots.to(device)
                by_place[image.span.row, slots if image.index is None else slots[image.index]] = image.mass.log()
        rows = by_place.gather(1, kept.index)
        prefill.log_mass[len(prefill.levels)] = rows if kept.valid is None else rows * kept.valid

    def entered(self, prefill: Prefill, index: int, level: int, cache: Any) -> None:
        """In front of a layer, whose cache is about to take the chunk: keep the bias with its entries."""
        layer = cache.layers[index] if cache is not None and index < len(cache.layers) else None
        chunk = prefill.log_mass.get(level)
        if chunk is None or not isinstance(layer, PrunedLayer) or layer.pruned_shadow is None:
            return
        stored = int(layer.get_seq_length() - layer.pruned_dropped)
        before = layer.pruned_bias
        before = chunk.new_zeros(len(chunk), 0) if before is None else before
        layer.pruned_bias = torch.cat([functional.pad(before, (0, stored - before.shape[1])), chunk], 1)

    def _attend(self, index: int, call: Any, backend: str, module: Any, *args: Any, **kwargs: Any) -> Any:
        bias = self._bias(index)
        if bias is None:
            return call(module, *args, **kwargs)
        return attend_with(bias, backend, call, module, *args, **kwargs)

    def _bias(self, index: int) -> Tensor | None:
        """[b, k] of the entries that layer `index` attends to, as far as any has one."""
        fwd: Forward | None = self.local.forward
        if fwd is None:
            return None
        level = sum(site <= index for site in self.sites)
        layers = getattr(fwd.cache, "layers", ())
        layer = layers[index] if index < len(layers) else None
        if not isinstance(layer, PrunedLayer):
            return None if fwd.prefill is None else fwd.prefill.log_mass.get(level)
        leader = layer.pruned_state.members[layer.pruned_kind][0]
        return layers[leader].pruned_bias  # type: ignore[no-any-return]


def attend_with(
    bias: Tensor, backend: str, call: Any, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any,
    *args: Any, **kwargs: Any,
) -> Any:  # fmt: skip
    """What an attention function returns with `bias` on the logits of the keys.

    Args:
        bias: [b, j] of the first keys; those behind them have none.
        backend: whose function `call` is.
        query: [b, heads, q, d].
        key: [b, kv_heads, k, d], `value` likewise.
    """
    bias = functional.pad(bias.to(query.device), (0, key.shape[2] - bias.shape[1]))[:, None, None]  # [b, 1, 1, k]
    if "flash" in backend:
        return augmented(bias, call, module, query, key, value, mask, *args, **kwargs)
    if "flex" in backend:
        whole = bias.to(query.dtype).expand(-1, query.shape[1], query.shape[2], -1)
        return call(module, query, key, value, mask, *args, position_bias=whole, **kwargs)
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    return call(module, query, key, value, _added(bias, mask, query, key, causal), *args, **kwargs)


def _added(bias: Tensor, mask: Tensor | None, query: Tensor, key: Tensor, causal: bool) -> Tensor:
    """[b, 1, q, k] float mask, what `mask` says with the bias on it."""
    q, k, dtype = query.shape[2], key.shape[2], query.dtype
    whole = bias.to(dtype).expand(-1, -1, q, -1)
    if mask is None:
        if not causal or q == 1:
            return whole
        if q != k:
            raise unseen(f"a layer attends from {q} queries to {k} keys without a mask")
        mask = torch.ones(q, k, dtype=torch.bool, device=query.device).tril()
    if mask.dtype == torch.bool:
        return whole.masked_fill(~mask[..., :k], torch.finfo(dtype).min)
    return (mask[..., :k] + bias.to(mask.dtype)).clamp(min=torch.finfo(mask.dtype).min)


def augmented(
    bias: Tensor, call: Any, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, *args: Any,
    **kwargs: Any,
) -> Any:  # fmt: skip
    """The same through one more column of queries and keys, for functions that take no bias. `bias` is [b, 1, 1, k].

    Keys in a cache stay as they are. The function is told the scale, which it would take of the wider heads.
    """
    width = value.shape[-1]
    scale = kwargs.pop("scaling", None) or query.shape[-1] ** -0.5
    one = functional.pad(torch.ones_like(query[..., :1]), (0, _COLUMNS - 1))
    column = (bias.transpose(2, 3) / scale).to(key.dtype).expand(len(key), key.shape[1], -1, 1)
    wider = torch.cat([key, functional.pad(column, (0, _COLUMNS - 1))], -1)
    value = functional.pad(value, (0, _COLUMNS))
    out, weights = call(module, torch.cat([query, one], -1), wider, value, mask, *args, scaling=scale, **kwargs)
    return out[..., :width], weights
