"""The yardstick for decoders in which nothing can be hidden: layers are called one by one on the rows that are left.

A recurrence has no form in which a token stands in the sequence and is not seen. So each decoder layer is called alone,
without a cache and without padding, with exactly the rows that are there by then, at the positions that they had in the
whole sequence. Every step of an answer starts again from the prompt; a later turn, from what entered the layer before.
Nothing is shared with the engine.
"""

from __future__ import annotations

import contextlib
import functools
from collections import UserDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

__all__ = ["BESIDE", "CHOOSING", "STATES", "layers_of", "shortened", "types_of"]

_CACHE = ("cache", "past_key_values")  # names of it, since transformers 5.24 and before
BESIDE = ("hybrid", "hybrid_sliding")  # layers with states beside what they attend to
STATES = ("linear_attention", "conv", "moe", "mlp")
PADDING = ("conv_mask",)  # arguments that hide what is not there when rows are called alone
BLOCKS = ("minimax_m3_sparse",)  # layers that choose among blocks of them, counted from the first
CHOOSING = ("indexed_attention", *BLOCKS)  # layers that choose among the keys that are there


def types_of(model: Any) -> list[str]:
    """Kinds of the decoder's layers, as its configuration says."""
    return list(getattr(model.config.get_text_config(), "layer_types", None) or [])


def layers_of(model: Any) -> Any:
    """The decoder's list of layers, also behind a head of its own."""
    decoder = model.base_model.get_decoder()
    return decoder.layers if hasattr(decoder, "layers") else decoder.model.layers


@contextlib.contextmanager
def shortened(model: Any, dropped: dict[int, Tensor]) -> Iterator[None]:
    """Leave `dropped[layer]` ([b, s] bool over the sequence so far) out of every decoder layer."""
    told: dict[Any, Any] = {}

    def listen(module: Any, args: Any, kwargs: Any) -> None:
        told["mask"] = kwargs.get("attention_mask")

    handle = model.register_forward_pre_hook(listen, with_kwargs=True)
    layers, cached = layers_of(model), model.generation_config.use_cache
    model.generation_config.use_cache = False
    for index, layer in enumerate(layers):
        layer.forward = functools.partial(_rows, layer.forward, model, index, dropped[index], told)
    try:
        yield
    finally:
        handle.remove()
        model.generation_config.use_cache = cached
        for layer in layers:
            del layer.forward


def _rows(
    original: Any, model: Any, index: int, dropped: Tensor, told: dict[Any, Any], *args: Any, **kwargs: Any
) -> Any:
    """One layer over [b, s, d], where rows that are gone or padding stay zero."""
    hidden = args[0] if args else kwargs.pop("hidden_states")
    assert len(args) <= 1
    name = next(name for name in _CACHE if name in kwargs)
    chunk, cache = hidden.shape[1], kwargs.pop(name)
    if cache is not None:
        hidden, kwargs = _with_earlier(told, cache, index, hidden, kwargs)
    batch, length = hidden.shape[:2]
    alive = torch.ones(batch, length, dtype=torch.bool, device=hidden.device)
    known = min(length, dropped.shape[1])
    alive[:, :known] &= ~dropped[:, :known].repeat_interleave(batch // len(dropped), 0).to(alive.device)
    if told["mask"] is not None:
        alive &= told["mask"].bool().to(alive.device)
    out, others = torch.zeros_like(hidden), []
    for row in range(batch):
        places = alive[row].nonzero().flatten()
        given = {key: _cut(value, row, places, length) for key, value in kwargs.items()}
        given.update({key: _own(told, value, row) for key, value in given.items() if isinstance(value, UserDict)})
        given |= dict.fromkeys((name, *(key for key in PADDING if key in given)))
        given["attention_mask"] = _mask(model, index, places, hidden, kwargs.get("attention_mask"))
        if types_of(model)[index] in BLOCKS:
            given["position_ids"] = torch.arange(len(places), device=places.device)[None]
        with _far_apart(layers_of(model)[index], places):
            whole = original(hidden[row : row + 1, places], **given)
        out[row, places] = whole[0][0] if isinstance(whole, tuple) else whole[0]
        others.append(whole[1:] if isinstance(whole, tuple) else None)
    out = out[:, length - chunk :]
    if others[0] is None:
        return out
    return (out, *(list(each) for each in zip(*others, strict=True)))  # what is handed on to the next layer, by row


@contextlib.contextmanager
def _far_apart(layer: Any, places: Tensor) -> Iterator[None]:
    """A layer that biases its logits by distances is told those in the whole sequence; where it also scales all that is
    on its logits by the number of a place, it is told the scale."""
    attention = getattr(layer, "self_attn", None)
    part = getattr(attention, "rel_logits_proj", None)
    if attention is None or part is None:
        yield
        return
    handles = [part.register_forward_pre_hook(lambda module, args: (args[0], places, places))]
    floor = attention.config.log_scaling_n_floor
    if floor is not None and not attention.is_sliding:
        counted = torch.arange(len(places), device=places.device)
        true, made = (
            1 + attention.config.log_scaling_alpha * ((p + 1) / floor).log().clamp(0) for p in (places, counted)
        )
        lacks = (true / made)[:, None]
        handles.append(part.register_forward_hook(lambda module, args, bias: bias * lacks))
        handles.append(attention.q_norm.register_forward_hook(lambda module, args, rows: rows * lacks[..., None]))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _own(told: dict[Any, Any], shared: Any, row: int) -> Any:
    """The container by which layers hand on keys, for one row alone."""
    return told.setdefault((id(shared), "row", row), (shared, type(shared)()))[1]


def _with_earlier(
    told: dict[Any, Any], cache: Any, index: int, hidden: Tensor, kwargs: dict[str, Any]
) -> tuple[Tensor, dict[str, Any]]:
    """What entered the layer in earlier turns on this cache, and now. The cache only counts."""
    if isinstance(cache.layers[index], CacheLayerMixin):
        count = hidden.new_zeros(len(hidden), 1, hidden.shape[1], 1)
        cache.update(count, count, index)
    # Held, so that no other has its number.
    _, states, tables, places, words = told.setdefault((id(cache), index), (cache, [], [], [], {}))
    states.append(hidden)
    places.append(kwargs.get("position_ids"))
    rotary = kwargs.get("position_embeddings")
    if rotary is not None and rotary[0].shape[1] == hidden.shape[1]:  # else those of all turns
        tables.append(rotary)
        kwargs["position_embeddings"] = tuple(torch.cat(parts, 1) for parts in zip(*tables, strict=True))
    for name, value in kwargs.items():  # of every token
        if name not in ("attention_mask", "position_ids") and isinstance(value, Tensor) and value.dim() == 2:
            words.setdefault(name, []).append(value)
            kwargs = {**kwargs, name: torch.cat(words[name], 1)}
    known = None if places[-1] is None or places[-1].dim() != 2 else torch.cat(places, 1)
    return torch.cat(states, 1), {**kwargs, "position_ids": known}


def _cut(value: Any, row: int, places: Tensor, length: int) -> Any:
    """The part of an argument [b or 1, s, ...] that belongs to the rows that are left."""
    if isinstance(value, list):
        return value[row]
    if isinstance(value, tuple):
        return tuple(_cut(each, row, places, length) for each in value)
    if not isinstance(value, Tensor) or value.dim() < 2 or value.shape[1] != length:
        return value
    return value[row % value.shape[0], places][None]


def _mask(model: Any, index: int, places: Tensor, like: Tensor, before: Any) -> Tensor | None:
    """[1, 1, k, k] causal, inside the window where the layer has one; None where it attends to nothing. A layer that
    makes its own of [b, q] gets [1, k]."""
    kind = types_of(model)[index]
    if kind in STATES:
        return None
    if isinstance(before, Tensor) and before.dim() == 2:
        return torch.ones(1, len(places), dtype=before.dtype, device=before.device)
    seen = places[:, None] >= places[None]
    if "sliding" in kind:
        seen &= places[:, None] - places[None] < model.config.get_text_config().sliding_window
    if model.config.get_text_config()._attn_implementation == "sdpa":
        return seen[None, None]
    return torch.zeros(seen.shape, dtype=like.dtype, device=like.device).masked_fill(
        ~seen, torch.finfo(like.dtype).min
    )[None, None]
