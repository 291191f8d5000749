"""What a decoder layer is called with, fitted to the rows that are left: mask, rotary tables, positions, cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vlm_pruner.engine.cache import PrunedLayer, Signature, prune_layer, signature
from vlm_pruner.engine.forward import Forward
from vlm_pruner.engine.masks import Places, remap_mask
from vlm_pruner.engine.rows import gather_rows
from vlm_pruner.engine.support import Parts
from vlm_pruner.errors import PrunedCacheError, UnsupportedModelError

__all__ = ["Arguments", "by_name", "follow", "hidden_of", "with_hidden"]

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def by_name(layer: nn.Module, names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """The same call with everything behind the hidden states passed by name, so that one rule serves both ways.

    Args:
        names: those of the parameters that may be passed by position, hidden states first.

    Raises:
        UnsupportedModelError: more positional arguments than names.
    """
    if len(args) < 2:
        return args, kwargs
    if len(args) > len(names):
        raise UnsupportedModelError(
            f"{type(layer).__name__} is called with {len(args)} positional arguments, of which only "
            f"{len(names)} have names: {', '.join(names)}"
        )
    return args[:1], {**kwargs, **dict(zip(names[1:], args[1:], strict=False))}


def hidden_of(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The hidden states [b, q, d] that a decoder layer is called with.

    Raises:
        UnsupportedModelError: it has another name for them.
    """
    if not args and "hidden_states" not in kwargs:
        raise UnsupportedModelError(f"{type(layer).__name__} is called without hidden_states, but {sorted(kwargs)}")
    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden


def with_hidden(hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """The same call with other hidden states."""
    return ((hidden,), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})


def follow(
    fwd: Forward, parts: Parts, index: int, level: int, hidden: Tensor, kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The keyword arguments of decoder layer `index`, fitted to the rows that are left.

    Args:
        level: number of stages at or before this layer.
        hidden: [b, k, d] rows that are left.

    Raises:
        PrunedCacheError: a cache that was filled in another order.
        UnsupportedModelError: an argument that follows the sequence, and has no rule.
    """
    cache = kwargs.get(parts.layer_cache)
    layer, places, ragged = None, None, fwd.kept is not None and fwd.kept.valid is not None
    if cache is not None:
        layers = cache.layers
        if fwd.kept is None and (index >= len(layers) or not isinstance(layers[index], PrunedLayer)):
            return kwargs  # an earlier turn dropped nothing up to here
        if fwd.kept is None and kwargs.get("attention_mask") is None and layers[index].pruned_may_lag:
            return kwargs  # a decode step without padding: no mask to fit, so that no place is asked for
        layer, places = _enter_cache(fwd, cache, index, level, hidden)
        ragged = ragged or layer.pruned_state.ragged
    elif fwd.kept is not None:
        own = _query_places(fwd, 0, hidden)
        places = Places(own, own)
    if places is None:
        return kwargs
    kwargs = dict(kwargs)
    if "attention_mask" in kwargs:
        mask = kwargs["attention_mask"]
        tag = (level, None if layer is None else signature(layer, level))
        known, made = fwd.recall(mask, tag)
        if not known:
            causal = getattr(getattr(parts.layers[index], "self_attn", None), "is_causal", True)
            made = remap_mask(mask, places, fwd.kept, ragged, causal, hidden, parts.backend)
            fwd.remember(mask, tag, made)
        kwargs["attention_mask"] = made
    if fwd.kept is not None:
        _follow_queries(fwd, parts, level, kwargs)
    return kwargs


def _enter_cache(fwd: Forward, cache: Any, index: int, level: int, hidden: Tensor) -> tuple[Any, Places]:
    """Announce the new entries to the layer's cache, and say which places it will hold."""
    assert fwd.state is not None
    layer = prune_layer(cache, index, level, fwd.state, hidden.shape[0])
    past = layer.get_seq_length()
    kind = signature(layer, level)
    if kind not in fwd.places:
        offset = layer.get_mask_sizes(fwd.length)[1]
        query = _query_places(fwd, past, hidden)
        fwd.places[kind] = Places(query, _key_places(fwd, cache, index, kind, query), offset)
        if fwd.kept is not None and fwd.kept.valid is not None:
            fwd.state.ragged = True
    if fwd.kept is not None:
        layer.pruned_drop(fwd.length - hidden.shape[1], hidden.device)
        assert fwd.prompt is not None
        layer.pruned_floor = past + fwd.length - fwd.prompt.tail
    return layer, fwd.places[kind]


def _key_places(fwd: Forward, cache: Any, index: int, kind: Signature, query: Tensor) -> Tensor:
    """[b, k] place + 1 of everything that layers of this kind hold after the chunk at the places `query`."""
    assert fwd.state is not None
    leads = fwd.state.members[kind][0]
    leader = cache.layers[leads]
    leader.pruned_catch_up()
    key = leader.pruned_shadow.keys
    if leads == index:
        entries = query[:, None, :, None]
        key, _ = leader.pruned_shadow.update(entries, entries[..., :0])
    elif leads > index or fwd.kept is not None:
        raise PrunedCacheError(f"decoder layer {index} of a pruned cache ran before layer {leads}")
    places: Tensor = key[:, 0, :, 0]  # otherwise the leader went ahead in this step, without a mask
    return places


def _query_places(fwd: Forward, past: int | Tensor, hidden: Tensor) -> Tensor:
    """[b, k] place + 1 in the unpruned sequence of every row that is left, 0 for padding."""
    if isinstance(past, Tensor):
        past = past.to(hidden.device)
    if fwd.kept is None:
        return (torch.arange(1, fwd.length + 1, device=hidden.device) + past).expand(hidden.shape[0], -1)
    place = fwd.kept.index.to(hidden.device) + 1 + past
    return place if fwd.kept.valid is None else torch.where(fwd.kept.valid.to(hidden.device), place, 0)


def _follow_queries(fwd: Forward, parts: Parts, level: int, kwargs: dict[str, Any]) -> None:
    """Cut the arguments that have one entry per query down to the surviving ones."""
    assert fwd.kept is not None
    for name, value in list(kwargs.items()):
        if name in ("attention_mask", "hidden_states", parts.layer_cache) or value is None:
            continue
        if name == "position_embeddings":
            kwargs[name] = _once(fwd, value, ("rotary", level), _cut_rotary)
        elif name == "position_ids":
            # Only flash attention reads them here, to guess packed sequences: gaps would look like packing.
            if "flash" in parts.backend:
                kwargs[name] = None
            else:
                kwargs[name] = _once(fwd, value, ("positions", level), _cut_positions)
        elif name in parts.adapter.per_token:
            kwargs[name] = gather_rows(value, fwd.kept.index)
        elif name not in parts.adapter.handed_on and (shape := _follows(value, fwd.length)) is not None:
            raise UnsupportedModelError(
                f"{parts.name}: decoder layer argument {name!r} of shape {shape} has no rule for pruning"
            )


def _follows(value: Any, length: int) -> tuple[int, ...] | None:
    """The shape of a tensor in `value` that has one entry per query, None if there is none."""
    if isinstance(value, Tensor):
        return tuple(value.shape) if length in value.shape else None
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return next((shape for each in inner if (shape := _follows(each, length)) is not None), None)


def _once(fwd: Forward, value: Any, tag: Any, make: Callable[[Forward, Any], Any]) -> Any:
    key = value[0] if isinstance(value, tuple) else value  # accelerate rebuilds tuples, tensors stay the same objects
    known, made = fwd.recall(key, tag)
    return made if known else fwd.remember(key, tag, make(fwd, value))


def _cut_rotary(fwd: Forward, rotary: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """(cos, sin), each [b or 1, q, head_dim] -> [b, k, head_dim], renumbered first where the plan says so."""
    assert fwd.kept is not None
    if fwd.repacked:
        known, rotary = fwd.recall(rotary[0], "repacked")
        if not known:
            raise UnsupportedModelError("positions cannot be repacked: the rotary tables are not those of rotary_emb")
    for table in rotary:
        if table.dim() != 3 or table.shape[1] != fwd.length:
            raise UnsupportedModelError(f"rotary tables of shape {tuple(table.shape)} have no rule for pruning")
    return tuple(gather_rows(table, fwd.kept.index) for table in rotary)


def _cut_positions(fwd: Forward, positions: Tensor) -> Tensor:
    """[..., b or 1, q] -> [..., b, k]."""
    assert fwd.kept is not None
    index = fwd.kept.index
    flat = positions.reshape(-1, *positions.shape[-2:])
    return torch.stack([gather_rows(p, index) for p in flat]).reshape(*positions.shape[:-2], *index.shape)
