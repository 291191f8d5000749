"""Cache layers that hold fewer entries than they report.

From the first pruned decoder layer on, a cache layer stores the survivors only, yet tells everybody who asks
(`generate`, mask creation, positions, the next turn) the length of the unpruned sequence. Which place of that sequence
a stored entry came from is kept in a *shadow*: a layer of the same class whose "keys" are place numbers, so that
truncation, rolling, cropping and reordering happen to both alike, by construction. All that must outlive a forward
lives here, in the cache: copies, interleaved conversations and a new session in the second turn just work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import cache_utils

from vlm_pruner.engine.behind import BehindPrompt, is_behind_prompt
from vlm_pruner.engine.shadow import BESIDE, STOCK, shadow_of
from vlm_pruner.errors import PrunedCacheError, UnsupportedModelError

__all__ = ["CacheState", "PrunedLayer", "counting", "first_pruned", "prune_layer", "release", "state_of"]

Signature = tuple[Any, ...]  # kind of layer, window, room, stages behind it: layers of one store the same places


@dataclass
class CacheState:
    """What the pruned layers of one cache share."""

    sites: tuple[int, ...]  # decoder layers at which the plan prunes
    positions: str
    ragged: bool = False  # some stored entry is padding, because rows kept different counts
    members: dict[Signature, list[int]] = field(default_factory=dict)  # layers of a kind, first who has its shadow
    open: bool = False  # inside a forward of the model that is hooked to fit masks to what is stored
    emptied: bool = False  # by reset: what is stored since then was not pruned
    spoiled: bool = False  # by a crop that was refused when the layers in front had followed it


class PrunedLayer:
    """Mixed into a cache layer class: stores the survivors, reports the unpruned length."""

    # CacheLayerMixin.__init_subclass__ would register the mixed class in place of the stock one otherwise.
    _layer_type = None

    pruned_state: CacheState
    pruned_kind: Signature
    pruned_shadow: Any = None  # only on the leader of a signature
    pruned_shift: Tensor | None = None  # [b, 1] places closed up by repacking, on the leader of layer 0
    pruned_bias: Tensor | None = None  # [b, n] on the logits of the first entries, on the leader of a signature
    pruned_dropped: int | Tensor = 0  # unpruned length minus stored length
    pruned_bare: bool = False  # what is stored is told for the moment
    pruned_first: int = 0  # places of the prompt, which a window over what is generated leaves out
    pruned_counter: str | None = None  # what a sliding layer counts by; None = as it is called in this release
    # Unpruned length up to the last pruned token, below which nothing may be cropped. Constant while decoding: a
    # counter that changed every step would make a compiled decode step recompile every step.
    pruned_floor: int | Tensor = 0

    def __reduce__(self) -> Any:
        """Copied and pickled by the classes that it is mixed of: the mixture itself has no name in a module."""
        *_, mixin, stock = type(self).__bases__
        return _restore, (mixin, stock), vars(self)

    def get_seq_length(self) -> Any:
        stored = super().get_seq_length()  # type: ignore[misc]
        return stored if self.pruned_bare else stored + self.pruned_dropped

    def pruned_drop(self, count: int, device: torch.device) -> None:
        """`count` tokens more come that are not stored. A layer that counts on the device keeps this number there, too:
        a compiled decode step would be compiled again for another number of the host."""
        counts_there = isinstance(getattr(self, "cumulative_length", None), Tensor) and not getattr(
            self, "is_sliding", False
        )
        self.pruned_dropped = self.pruned_dropped + (torch.full((), count, device=device) if counts_there else count)

    def pruned_shorten(self, count: int) -> None:
        """`count` tokens of the prompt are about to be left out; only windows behind the prompt count them apart."""

    def get_mask_sizes(self, query_length: int) -> Any:
        # Sliding layers compute from their own counter and not from get_seq_length.
        counter = self.pruned_counter
        if counter is None:
            counter = "cumulative_length_int" if hasattr(self, "cumulative_length_int") else "cumulative_length"
        if not (getattr(self, "is_sliding", False) and self.pruned_dropped):
            return super().get_mask_sizes(query_length)  # type: ignore[misc]
        stored = getattr(self, counter)
        setattr(self, counter, stored + self.pruned_dropped)
        try:
            return super().get_mask_sizes(query_length)  # type: ignore[misc]
        finally:
            setattr(self, counter, stored)

    @property
    def pruned_may_lag(self) -> bool:
        """May a decode step leave the shadow behind? What it stores then has the last places, whatever the row."""
        return type(self.pruned_shadow) is cache_utils.DynamicLayer and not self.pruned_state.ragged

    def pruned_catch_up(self) -> None:
        """Append the places of the entries that were stored without the shadow."""
        if not self.pruned_may_lag or not self.pruned_shadow.is_initialized:
            return
        end, known = self.get_seq_length(), self.pruned_shadow.keys
        missing = end - self.pruned_dropped - known.shape[-2]
        if missing > 0:
            places = torch.arange(end - missing + 1, end + 1, device=known.device)[:, None]
            places = places.expand(known.shape[0], 1, -1, -1)
            self.pruned_shadow.update(places, places[..., :0])

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)  # type: ignore[misc]
        if self.pruned_shadow is not None:
            self.pruned_shadow.reorder_cache(beam_idx)
        self._each_row(lambda rows: rows.index_select(0, beam_idx.to(rows.device)))

    def _each_row(self, move: Callable[[Tensor], Tensor]) -> None:
        """Have what is kept row by row follow the entries."""
        for name in ("pruned_shift", "pruned_bias"):
            if getattr(self, name) is not None:
                setattr(self, name, move(getattr(self, name)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)  # type: ignore[misc]
        if self.pruned_shadow is not None:
            self.pruned_shadow.batch_repeat_interleave(repeats)
        self._each_row(lambda rows: rows.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)  # type: ignore[misc]
        if self.pruned_shadow is not None:
            self.pruned_shadow.batch_select_indices(indices)
        self._each_row(lambda rows: rows[indices])

    def crop(self, tokens_to_remove: int) -> None:
        left = self.get_seq_length() - abs(int(tokens_to_remove))
        if left < self.pruned_floor:
            self.pruned_state.spoiled |= min(known[0] for known in self.pruned_state.members.values()) > 0
            raise PrunedCacheError(
                f"cannot crop a pruned cache to {int(left)} tokens: up to token {int(self.pruned_floor)} it holds a "
                "pruned image, and no longer what was dropped there"
            )
        self.pruned_catch_up()
        super().crop(tokens_to_remove)  # type: ignore[misc]
        if self.pruned_shadow is not None:
            self.pruned_shadow.crop(tokens_to_remove)

    def reset(self) -> None:
        super().reset()  # type: ignore[misc]
        self.pruned_dropped = self.pruned_floor = 0
        self.pruned_shift = self.pruned_shadow = self.pruned_bias = None
        self.pruned_state.emptied = True


class FirstPrunedLayer(PrunedLayer):
    """The first pruned layer of a cache, which every forward reaches before the others: it stands guard for them."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not (self.pruned_state.open or self.pruned_state.emptied):
            raise PrunedCacheError(
                f"this cache was pruned at decoder layers {list(self.pruned_state.sites)}: the model can only go on "
                "from it inside vp.prune(...) or vp.attach(...) with the same layers, which fit its attention masks to "
                "what is stored"
            )
        return super().update(key_states, value_states, *args, **kwargs)  # type: ignore[misc]


_CLASSES: dict[tuple[type, type], type] = {}


def _pruned_class(mixin: type[PrunedLayer], stock: type) -> type[Any]:
    if (mixin, stock) not in _CLASSES:
        # Older releases of transformers have no common base of integer and floating point layers.
        quantized = getattr(cache_utils, "BaseQuantizedLayer", cache_utils.QuantizedLayer)
        # Keys of an indexer beside those of a stock layer, or a window behind the whole prompt.
        derived = hasattr(stock, "update_index") or is_behind_prompt(stock)
        known = stock in (*STOCK, *BESIDE) or (derived and stock.__base__ in STOCK)
        if not known and not issubclass(stock, quantized):
            raise UnsupportedModelError(
                f"cache layers of type {stock.__name__} cannot be pruned; known are "
                f"{', '.join(c.__name__ for c in STOCK)} and the quantized layers"
            )
        before = (BehindPrompt,) if is_behind_prompt(stock) else ()
        _CLASSES[mixin, stock] = type(f"Pruned{stock.__name__}", (*before, mixin, stock), {})
    return _CLASSES[mixin, stock]


def _restore(mixin: type[PrunedLayer], stock: type) -> Any:
    """An empty layer of the pruned form of a stock class, to be filled with its contents."""
    return object.__new__(_pruned_class(mixin, stock))


def counting(cache: Any) -> Iterator[Any]:
    """The layers of a cache that count the sequence: those of recurrences hold states, those of networks nothing."""
    return (layer for layer in getattr(cache, "layers", None) or () if isinstance(layer, cache_utils.CacheLayerMixin))


def first_pruned(cache: Any) -> Any:
    """The first pruned layer of a cache, which stands guard for the others; None in a stock one."""
    layers = getattr(cache, "layers", None) or ()
    return next((layer for layer in layers if isinstance(layer, PrunedLayer)), None)


def state_of(cache: Any) -> CacheState | None:
    """The state of a pruned cache, None for a stock one."""
    return getattr(first_pruned(cache), "pruned_state", None)


def release(cache: Any) -> None:
    """Make the pruned layers of a cache that was reset stock ones again: the next plan may prune elsewhere."""
    for index, layer in enumerate(cache.layers):
        if isinstance(layer, PrunedLayer):
            stock: Any = object.__new__(type(layer).__bases__[-1])
            stock.__dict__.update({k: v for k, v in vars(layer).items() if not k.startswith("pruned_")})
            cache.layers[index] = stock


def prune_layer(cache: Any, index: int, level: int, state: CacheState, batch: int) -> Any:
    """Layer `index` of `cache` as a pruned layer, made one in place if it is not yet."""
    while len(cache.layers) <= index:  # a DynamicCache without a config grows when it is used
        cache.layers.append(cache.layer_class_to_replicate())
    layer = cache.layers[index]
    if isinstance(layer, PrunedLayer):
        return layer
    first = all(index < known[0] for known in state.members.values())
    cls = _pruned_class(FirstPrunedLayer if first else PrunedLayer, type(layer))
    window, room = getattr(layer, "sliding_window", None), getattr(layer, "max_cache_len", None)
    kind = (type(layer).__name__, window, room, level)
    # A new object that shares the contents: the layouts of the classes differ, so that __class__ cannot be assigned.
    pruned = object.__new__(cls)
    pruned.__dict__.update(layer.__dict__)
    pruned.pruned_state = state
    pruned.pruned_kind = kind
    if kind not in state.members:
        pruned.pruned_shadow = shadow_of(layer, batch)
    state.members.setdefault(kind, []).append(index)
    cache.layers[index] = pruned
    return pruned
