"""In front of a forward: can it be pruned, and go on from its cache? Behind one with pictures: did what the plan says
come to pass? An answer that is not pruned is an error."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from vlm_pruner.engine.cache import CacheState, PrunedLayer, release, state_of
from vlm_pruner.engine.forward import Forward, Prefill
from vlm_pruner.engine.release import cache_in, unseen
from vlm_pruner.engine.rows import Kept
from vlm_pruner.engine.support import Parts
from vlm_pruner.errors import PrunedCacheError, UnsupportedModelError

__all__ = [
    "check_call", "check_layers", "check_logits", "check_pruned", "check_room", "refuse_compiled", "state_for",
]  # fmt: skip

_PACKED = ("cu_seq_lens_q", "cu_seq_lens_k", "cu_seqlens_q", "cu_seqlens_k")


def check_layers(parts: Parts) -> None:
    """Raise where a decoder layer was exchanged since the hooks were put on.

    Raises:
        UnsupportedModelError: names the first.
    """
    now: Any = parts.text.layers
    for index, (layer, hooked) in enumerate(zip(now, parts.hooked, strict=False)):
        if layer is not hooked:
            raise UnsupportedModelError(
                f"decoder layer {index} was exchanged inside the block of a pruner, which has no hooks on the new one: "
                "leave the block, exchange it, and prune again"
            )
    if len(now) != len(parts.hooked):
        raise UnsupportedModelError(f"the decoder has {len(now)} layers by now, {len(parts.hooked)} when it was pruned")


def check_call(arguments: dict[str, Any], cache: Any, visual: Tensor, last: Any) -> None:
    """Raise where a forward with pictures is asked for what a shorter sequence cannot give.

    Args:
        cache: among the arguments, None if there is none.
        visual: [b, q] bool on the host, the places of visual tokens.
        last: `logits_to_keep` where rows are not put back to their places, else 0.

    Raises:
        UnsupportedModelError: another kind of cache, packed sequences, logits by their places, or of visual tokens.
    """
    if cache is not None and not hasattr(cache, "layers"):
        raise UnsupportedModelError(f"a cache of type {type(cache).__name__} has no layers that can be pruned")
    for name in _PACKED:
        if arguments.get(name) is not None:
            raise UnsupportedModelError(f"{name}: packed sequences cannot be pruned; pass the rows as a padded batch")
    if isinstance(last, Tensor):
        raise UnsupportedModelError(
            "logits_to_keep as a tensor names places of the unpruned sequence; pass a number, or prune with "
            "full_length=True"
        )
    if last > 1 and bool(visual[:, -last:].any()):
        raise UnsupportedModelError(f"logits_to_keep={last} reaches into the visual tokens, some of which are dropped")


def state_for(cache: Any, sites: tuple[int, ...], positions: str) -> CacheState | None:
    """The state of a cache that a plan can go on from, None if nothing of it is pruned.

    Args:
        sites: decoder layers of the stages; `positions` is of the same plan.

    Raises:
        PrunedCacheError: it was pruned by another plan, or a crop has left it in pieces.
    """
    state = state_of(cache)
    if state is None:
        return None
    if state.emptied:
        release(cache)
        return None
    if state.spoiled:
        raise PrunedCacheError(
            f"a crop of this cache was refused at decoder layer {state.sites[0]}, behind layers that had followed "
            "it: they no longer fit together, make the cache again"
        )
    if (state.sites, state.positions) != (sites, positions):
        raise PrunedCacheError(
            f"this cache was pruned at decoder layers {list(state.sites)} with positions {state.positions}, but "
            f"the plan prunes at layers {list(sites)} with positions {positions}"
        )
    return state


def check_room(cache: Any, past: int | None, more: int) -> None:
    """Raise where a preallocated cache is too short. Pruned tokens keep their places, so that no layer behind them
    overflows by itself: what lies beyond the mask would not be seen. On a GPU a model's own overflow ends the process.

    Args:
        past: places that are taken, `more` are to come; None = what the cache says, which is one read of the device.

    Raises:
        PrunedCacheError: the numbers.
    """
    layers = getattr(cache, "layers", None) or ()
    rooms = [layer.max_cache_len for layer in layers if hasattr(layer, "max_cache_len") and not layer.is_sliding]
    if not rooms:
        return
    need = more + (int(cache.get_seq_length()) if past is None else past)
    if need > min(rooms):
        raise PrunedCacheError(
            f"a static cache of {min(rooms)} places is too short: pruned tokens keep theirs, and {need} are needed"
        )


def check_pruned(fwd: Forward, prefill: Prefill, parts: Parts, sites: tuple[int, ...], output: Any) -> None:
    """Raise where a stage did not run, rows do not add up, or the cache was not cut at the layers of the plan.

    Args:
        sites: decoder layers of the stages.
        output: what the decoder returned.

    Raises:
        UnsupportedModelError: names what was not seen, and the release of transformers.
    """
    if len(prefill.levels) != len(sites):
        raise unseen(f"{len(prefill.levels)} of the {len(sites)} stages of the plan ran")
    rows = _rows(output)
    if rows is not None and rows != fwd.rows:
        raise unseen(f"{rows} rows left the decoder, where {fwd.rows} were kept")
    cache = cache_in(output)
    if cache is None:
        if fwd.cache is not None:
            raise unseen("the decoder was given a cache and returned none")
        return
    if fwd.cache is not None and cache is not fwd.cache:
        raise unseen("the decoder returned another cache than it was given")
    for index, layer in enumerate(cache.layers):
        if not isinstance(layer, CacheLayerMixin):
            _check_states(index, layer)
        elif parts.sources[index] == index:  # else it holds what chooses among keys, if anything
            kept = [None, *prefill.levels][sum(site <= index for site in sites)]
            _check_layer(kept, prefill.past + fwd.length, index, layer)


def _check_states(index: int, layer: Any) -> None:
    """A layer that sees a shorter sequence and nothing else has states and no length, or nothing at all."""
    known: Any = getattr(layer, "has_previous_state", True)
    if not (any(known.values()) if isinstance(known, dict) else known):
        raise unseen(f"the states of decoder layer {index} were not filled")


def _check_layer(kept: Kept | None, want: Any, index: int, layer: Any) -> None:
    """Does the cache of a layer with the rows `kept` end at place `want`?"""
    if kept is not None and not isinstance(layer, PrunedLayer):
        raise unseen(f"the cache of decoder layer {index} was not cut")
    if not layer.is_initialized:
        raise unseen(f"the cache of decoder layer {index} was not filled")
    ends = layer.get_seq_length()
    if isinstance(ends, int) and isinstance(want, int) and ends != want:  # preallocated layers count on the device
        raise unseen(f"the cache of decoder layer {index} ends at place {ends}, the prompt at {want}")


def check_logits(output: Any, left: int, asked: Any) -> None:
    """Raise where the head did not see the rows that are left.

    Args:
        left: rows of the base model's output.
        asked: `logits_to_keep` as it was given.

    Raises:
        UnsupportedModelError: another number of rows, or a loss.
    """
    if getattr(output, "loss", None) is not None:
        raise unseen("a loss was computed on the pruned sequence")
    logits = getattr(output, "logits", None)
    want = len(asked) if isinstance(asked, Tensor) else min(asked or left, left)
    if isinstance(logits, Tensor) and logits.shape[1] not in (want, left):
        raise unseen(f"the head returned {logits.shape[1]} rows of logits, where {want} were expected")


def _rows(output: Any) -> int | None:
    """Rows of the last hidden state; None where a model that is its own head returns logits alone."""
    states = output[0] if isinstance(output, tuple) else getattr(output, "last_hidden_state", None)
    return states.shape[1] if isinstance(states, Tensor) else None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def refuse_compiled() -> None:
    """Raise, outside of the graphs. What the hooks of a prefill note on the way would be lost inside."""
    raise UnsupportedModelError(
        "a forward with images was compiled, which a pruner cannot follow: call the model itself for it. Decode steps "
        'can be compiled; generate does that on its own with cache_implementation="static"'
    )
