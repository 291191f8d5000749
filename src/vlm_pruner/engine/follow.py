"""What a decoder layer is called with, fitted to the rows that are left: mask, rotary tables, positions, cache."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vlm_pruner.engine.arguments import cut_queries, query_places
from vlm_pruner.engine.cache import PrunedLayer, Signature, prune_layer
from vlm_pruner.engine.forward import Forward
from vlm_pruner.engine.masks import Places
from vlm_pruner.engine.shared import follow_source
from vlm_pruner.engine.stored import cut_padding, fit_mask, fit_stored
from vlm_pruner.engine.support import Parts
from vlm_pruner.errors import PrunedCacheError

__all__ = ["follow"]


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
    if parts.follows(index):
        return kwargs if fwd.kept is None else _follow_states(fwd, parts, level, kwargs)
    if parts.sources[index] != index:
        return follow_source(fwd, parts, index, level, hidden, kwargs)
    cache = kwargs.get(parts.layer_cache)
    layer, places, ragged = None, None, fwd.kept is not None and fwd.kept.valid is not None
    if cache is not None:
        layers = cache.layers
        if fwd.kept is None and (index >= len(layers) or not isinstance(layers[index], PrunedLayer)):
            return kwargs  # an earlier turn dropped nothing up to here
        asked = kwargs.get("attention_mask") is not None or parts.measures(index)
        if fwd.kept is None and not asked and layers[index].pruned_may_lag:
            # A decode step without padding: no mask to fit, so that no place is asked for.
            return fit_stored(fwd, parts, index, layers[index], None, kwargs)
        layer, places = _enter_cache(fwd, cache, index, level, hidden)
        ragged = layer.pruned_state.ragged
    elif fwd.kept is not None:
        own = query_places(fwd.length, fwd.kept, 0, hidden)
        places = Places(own, own)
    if places is None:
        return kwargs
    kwargs = dict(kwargs)
    if parts.adapter.own_mask:
        if fwd.kept is not None:
            kwargs["attention_mask"] = cut_padding(fwd, parts, level, kwargs["attention_mask"])
    elif "attention_mask" in kwargs:
        mask, tag = kwargs["attention_mask"], (level, None if layer is None else layer.pruned_kind)
        kwargs["attention_mask"] = fit_mask(fwd, parts, index, mask, tag, places, fwd.kept, ragged, hidden)
    if fwd.kept is not None:
        cut_queries(fwd, parts, level, kwargs)
    return fit_stored(fwd, parts, index, layer, places, kwargs)


def _follow_states(fwd: Forward, parts: Parts, level: int, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a layer that sees a shorter sequence and nothing else: its mask is [b, q] or None, and
    hides the padding of rows that kept different counts. A mask for attention that it gets as well is not for it.

    Raises:
        UnsupportedModelError: see `cut_padding`.
    """
    kwargs = dict(kwargs)
    if not parts.adapter.padding:
        kwargs["attention_mask"] = cut_padding(fwd, parts, level, kwargs.get("attention_mask"))
    cut_queries(fwd, parts, level, kwargs)
    return kwargs


def _enter_cache(fwd: Forward, cache: Any, index: int, level: int, hidden: Tensor) -> tuple[Any, Places]:
    """Announce the new entries to the layer's cache, and say which places it will hold."""
    assert fwd.state is not None
    prefill = fwd.prefill
    layer = prune_layer(cache, index, level, fwd.state, hidden.shape[0])
    past = layer.get_seq_length()
    kind = layer.pruned_kind
    if fwd.kept is not None:
        layer.pruned_shorten(fwd.length - hidden.shape[1])
    if kind not in fwd.places:
        offset = layer.get_mask_sizes(fwd.length)[1]
        query = query_places(fwd.length, fwd.kept, past, hidden)
        fwd.places[kind] = Places(query, _key_places(fwd, cache, index, kind, query), offset, layer.pruned_first)
        if fwd.kept is not None and fwd.kept.valid is not None:
            fwd.state.ragged = True
    if prefill is not None and prefill.kept is not None:
        layer.pruned_drop(fwd.length - hidden.shape[1], hidden.device)
        layer.pruned_floor = past + fwd.length - prefill.prompt.tail
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
