"""What a method may read, taken from the layer before its stage: keys, earlier rows, single rows of attention.

Nothing is computed that no method asked for. Attention is recomputed for the rows in question alone, softmax(q K^T)
over all keys that the row can see, so that it is there under every attention backend and no n x n map ever exists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vlm_pruner.adapters.base import plane
from vlm_pruner.engine.forward import Forward
from vlm_pruner.engine.masks import visible_rows
from vlm_pruner.engine.prompt import ImageState
from vlm_pruner.engine.queries import Way, attention_of, find_way, remake, without_gate
from vlm_pruner.types import Signal, VisualTokens

__all__ = ["LayerTap", "tokens_reader"]

_OF_TEXT = frozenset({
    Signal.TEXT, Signal.TEXT_KEYS, Signal.TEXT_QUERIES, Signal.TEXT_VALUES, Signal.WORDS, Signal.TEXT_ATTENTION
})  # fmt: skip


class _KeyRecorder:
    """Stands in for `past_key_values` in one layer call and sees the keys on their way to the cache: after RoPE and key
    norm, for every family, with any cache and with none."""

    def __init__(self, cache: Any, tap: LayerTap) -> None:
        self._cache, self._tap = cache, tap

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self._tap.keys = self._tap.all_keys = key_states
        self._tap.values = value_states
        if self._cache is None:
            return key_states, value_states
        keys, values = self._cache.update(key_states, value_states, *args, **kwargs)
        self._tap.all_keys = keys
        return keys, values

    def update_indexer(self, keys: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Keys of an indexer go to the cache, if there is one."""
        return keys if self._cache is None else self._cache.update_indexer(keys, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)


@dataclass
class LayerTap:
    """What one call of the decoder layer before a stage was given and computed."""

    layer: nn.Module
    hidden: Tensor  # [b, q, d] rows that entered it
    mask: Any = None
    rotary: tuple[Tensor, Tensor] | None = None  # (cos, sin), each [b or 1, q, head_dim]
    past: int | None = None  # entries in a preallocated cache before this chunk
    keys: Tensor | None = None  # [b, kv_heads, q, head_dim] of this chunk
    all_keys: Tensor | None = None  # [b, kv_heads, k, head_dim] with those from the cache
    values: Tensor | None = None  # [b, kv_heads, q, head_dim] of this chunk
    queries: Tensor | None = None  # [b, q, heads * head_dim] as projected
    raw_keys: Tensor | None = None  # [b, q, kv_heads * head_dim] as projected
    ways: dict[nn.Module, Way] = field(default_factory=dict)  # of layers that were looked at before

    def recorder(self, cache: Any, index: int) -> Any:
        """What the layer is to use in place of its cache."""
        layers = getattr(cache, "layers", [])
        if index < len(layers) and hasattr(layers[index], "max_cache_len"):
            self.past = int(layers[index].get_seq_length()) - getattr(layers[index], "pruned_dropped", 0)
        return _KeyRecorder(cache, self)

    def attention(self, row: int, queries: Tensor) -> Tensor | None:
        """[heads, t, k] float32 attention of the queries at columns [t] of a row; None if it cannot be recomputed."""
        attn = attention_of(self.layer)
        way = self._way()
        if self.queries is None or self.all_keys is None or way is None:
            return None
        keys = self.all_keys[row]  # [kv_heads, k, head_dim]
        rows = self.queries[row].index_select(0, queries.to(self.queries.device))  # [t, heads * head_dim]
        made = without_gate(attn, rows, len(keys), keys.shape[-1])
        if made is None:
            return None
        q = remake(attn, made, keys.shape[-1], self.tables(row, queries), way, key=False)  # [heads, t, head_dim]
        groups = q.shape[0] // keys.shape[0]
        scaling = getattr(attn, "scaling", keys.shape[-1] ** -0.5)
        grouped = q.reshape(keys.shape[0], groups * len(queries), -1)
        scores = (grouped.float() @ keys.float().transpose(1, 2) * scaling).view(q.shape[0], len(queries), -1)
        cap = getattr(attn, "attn_logit_softcapping", None)
        if cap is not None:
            scores = torch.tanh(scores / cap) * cap
        causal = getattr(attn, "is_causal", True)
        chunk = self.hidden.shape[1]
        visible = visible_rows(self.mask, row, queries, keys.shape[1], chunk, self.past, causal)
        return torch.softmax(scores + visible, -1)

    def _way(self) -> Way | None:
        """How the layer makes queries of their projection, None if that is not known."""
        if self.raw_keys is None or self.keys is None:
            return None
        way = self.ways.get(self.layer)
        if way is None:  # also after a prompt where none was found: its rows may have been broken
            n = self.keys.shape[2]
            last = torch.arange(max(0, n - 2), n, device=self.keys.device)  # far from where nothing is turned
            rows, keys = self.raw_keys[0][last.to(self.raw_keys.device)], self.keys[0][:, last]
            way = find_way(attention_of(self.layer), rows, keys, self.tables(0, last))
            if way is not None:
                self.ways[self.layer] = way
        return way

    def projected(self, states: Tensor | None, row: int, columns: Tensor) -> Tensor | None:
        """[heads, t, head_dim] of `queries` or `raw_keys` at columns [t] of a row; None where there are none."""
        if states is None or self.keys is None:
            return None
        _, heads, _, width = self.keys.shape
        rows: Tensor | None = states[row].index_select(0, columns.to(states.device))
        if rows is not None and states is self.queries:
            rows = without_gate(attention_of(self.layer), rows, heads, width)
        return None if rows is None else rows.view(len(rows), -1, width).transpose(0, 1)

    def tables(self, row: int, queries: Tensor) -> tuple[Tensor, Tensor] | None:
        """(cos, sin), each [t, width], of the queries at columns [t]; None where nothing is turned."""
        if self.rotary is None:
            return None
        cos, sin = (table[row % table.shape[0]].index_select(0, queries.to(table.device)) for table in self.rotary)
        return cos, sin

    def own_columns(self, attention: Tensor) -> Tensor:
        """[heads, t, q] the part over the keys of this chunk."""
        chunk = self.hidden.shape[1]
        first = attention.shape[-1] - chunk if self.past is None else self.past
        return attention[..., first : first + chunk]


def tokens_reader(
    needs: frozenset[Signal], layer: int | None, fwd: Forward, hidden: Tensor, tap: LayerTap | None
) -> Callable[[ImageState], VisualTokens]:
    """A function that gathers, for one image, its rows and the signals in `needs`; what does not exist stays None."""
    prompt, kept = fwd.prompt, fwd.kept
    assert prompt is not None
    all_columns = None if kept is None else kept.columns

    def column(row: int, places: Tensor) -> Tensor:
        places = places.to(hidden.device, non_blocking=True)
        return places if all_columns is None else all_columns[row, places]

    def read(image: ImageState) -> VisualTokens:
        span, layout = image.span, image.span.layout
        row = span.row
        slots = span.slots.to(hidden.device, non_blocking=True)
        own = column(row, slots if image.index is None else slots[image.index])
        position = layout.position
        if position is not None:
            position = position.to(hidden.device, non_blocking=True)
        if image.index is not None:
            position = (position if position is not None else plane(*layout.grid, hidden.device))[image.index]
        filled: dict[str, Any] = {}
        if needs & _OF_TEXT:
            places = prompt.text_after(span)
            filled |= _text(needs, row, own, column(row, places), places, fwd, hidden, tap)
        if tap is not None:
            filled |= _layer_before(needs, row, own, column(row, prompt.last(row)), tap)
        if Signal.EMBEDDINGS in needs and fwd.entered is not None:
            places = slots if image.index is None else slots[image.index]
            filled["embeddings"] = fwd.entered[row].index_select(0, places)
        encoded = fwd.encoded.get(span.modality)
        if encoded is not None and encoded.vision is not None:
            filled["vision"] = encoded.vision.of(span, image.index)
        return VisualTokens(
            features=hidden[row].index_select(0, own),
            grid=layout.grid,
            position=position,
            layer=layer,
            **filled,
        )

    return read


def _text(
    needs: frozenset[Signal],
    row: int,
    own: Tensor,
    text: Tensor,
    places: Tensor,
    fwd: Forward,
    hidden: Tensor,
    tap: LayerTap | None,
) -> dict[str, Any]:
    """Signals of the text behind an image: `text` are its columns in what is left, `places` those in the chunk."""
    filled: dict[str, Any] = {}
    if Signal.TEXT in needs:
        filled["text"] = hidden[row].index_select(0, text)
    if Signal.WORDS in needs and fwd.entered is not None:
        filled["words"] = fwd.entered[row].index_select(0, places.to(fwd.entered.device))
    if tap is not None and tap.keys is not None and Signal.TEXT_KEYS in needs:
        filled["text_keys"] = tap.keys[row].index_select(1, text.to(tap.keys.device))
    if tap is not None and tap.values is not None and len(text) and Signal.TEXT_VALUES in needs:
        filled["text_values"] = tap.values[row].index_select(1, text.to(tap.values.device))
    if tap is not None and len(text) and Signal.TEXT_QUERIES in needs:
        filled["text_queries"] = tap.projected(tap.queries, row, text)
    if tap is not None and len(text) and Signal.TEXT_ATTENTION in needs:
        rows = tap.attention(row, text)
        if rows is not None:
            filled["text_attention"] = tap.own_columns(rows).index_select(-1, own)
    return filled


def _layer_before(needs: frozenset[Signal], row: int, own: Tensor, last: Tensor, tap: LayerTap) -> dict[str, Any]:
    filled: dict[str, Any] = {}
    if Signal.KEYS in needs and tap.keys is not None:
        filled["keys"] = tap.keys[row].index_select(1, own.to(tap.keys.device))
    if Signal.VALUES in needs and tap.values is not None:
        filled["values"] = tap.values[row].index_select(1, own.to(tap.values.device))
    if Signal.RAW_KEYS in needs:
        filled["raw_keys"] = tap.projected(tap.raw_keys, row, own)
    if Signal.ROTARY in needs:
        tables = tap.tables(row, own)
        filled["rotary"] = None if tables is None else torch.stack(tables)
    if Signal.PREVIOUS_FEATURES in needs:
        filled["previous"] = tap.hidden[row].index_select(0, own.to(tap.hidden.device))
    if Signal.LAST_QUERY_ATTENTION in needs:
        rows = tap.attention(row, last)
        if rows is not None:
            filled["attention"] = tap.own_columns(rows)[:, 0].index_select(-1, own)
    return filled
