"""What a method may read, taken from the layer before its stage: keys, earlier rows, single rows of attention.

Nothing is computed that no method asked for, and nothing of full length outlives the layer: what belongs to an image is
picked out at once. Attention is recomputed for the rows in question alone, softmax(q K^T) over all keys that the row
can see, so that it is there under every attention backend and no n x n map ever exists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vlm_pruner.engine.forward import Prefill
from vlm_pruner.engine.masks import visible_rows
from vlm_pruner.engine.prompt import ImageState
from vlm_pruner.engine.tap import Attended
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.types import Signal, VisualTokens

__all__ = [
    "ENTERED", "FROM_LAYER_BEFORE", "PROJECTED", "VISION", "LayerBefore", "projections", "reads", "tokens_reader",
]  # fmt: skip

PROJECTED = frozenset({Signal.RAW_KEYS, Signal.TEXT_QUERIES})  # before they are normed and turned
FROM_LAYER_BEFORE = PROJECTED | {
    Signal.KEYS, Signal.TEXT_KEYS, Signal.VALUES, Signal.TEXT_VALUES, Signal.ROTARY, Signal.PREVIOUS_FEATURES,
    Signal.LAST_QUERY_ATTENTION, Signal.TEXT_ATTENTION,
}  # fmt: skip
ENTERED = frozenset({Signal.WORDS, Signal.EMBEDDINGS})  # rows that enter the language model
VISION = frozenset({
    Signal.VISION_FEATURES, Signal.VISION_KEYS, Signal.CLS_ATTENTION, Signal.CLS_ATTENTIONS, Signal.VISION_ATTENTION
})  # fmt: skip


def reads(method: PruningMethod) -> frozenset[Signal]:
    """Everything that `method` reads where it is there."""
    return method.needs | method.wants


class LayerBefore:
    """What a method reads of one call of the decoder layer before its stage, image by image."""

    def __init__(
        self, needs: frozenset[Signal], prefill: Prefill, images: Sequence[ImageState], hidden: Tensor, rotary: Any
    ) -> None:
        """
        Args:
            images: those that the stage shortens.
            hidden: [b, q, d] rows that enter the layer.
            rotary: (cos, sin), each [b or 1, q, head_dim], or None.
        """
        self.needs, self.chunk = needs, hidden.shape[1]
        self.past: int | None = None  # entries in a preallocated cache before this chunk
        self._found: dict[int, dict[str, Any]] = {}
        self._images = []
        for image in images:
            at, found = _Columns(prefill, image, hidden.device), self._found.setdefault(id(image), {})
            self._images.append((at, found))
            if Signal.PREVIOUS_FEATURES in needs:
                found["previous"] = hidden[at.row].index_select(0, at.own)
            if Signal.ROTARY in needs and rotary is not None:
                tables = [table[at.row % table.shape[0]] for table in rotary]
                found["rotary"] = torch.stack([table.index_select(0, at.own.to(table.device)) for table in tables])

    def found_of(self, image: ImageState) -> dict[str, Any]:
        """Fields of `VisualTokens`; those that the layer does not have are missing."""
        return dict(self._found[id(image)])

    @torch.no_grad()
    def projected(self, kind: str, output: Tensor) -> None:
        """Pick out of what a projection gave, [b, q, heads * head_dim], before it is normed and turned."""
        name = {"q_proj": "text_queries", "k_proj": "raw_keys"}[kind]
        for at, found in self._images:
            columns = at.text if kind == "q_proj" else at.own
            if name in self.needs and len(columns):
                found[name] = output[at.row].index_select(0, columns.to(output.device))

    @torch.no_grad()
    def look(self, attended: Attended) -> None:
        """Pick out of what the layer attends to."""
        end = attended.key.shape[2] if self.past is None else self.past + self.chunk
        keys, values = (states[:, :, end - self.chunk : end] for states in (attended.key, attended.value))
        for at, found in self._images:
            row, own, text = at.row, at.own.to(keys.device), at.text.to(keys.device)
            if Signal.KEYS in self.needs:
                found["keys"] = keys[row].index_select(1, own)
            if Signal.VALUES in self.needs:
                found["values"] = values[row].index_select(1, own)
            if Signal.LAST_QUERY_ATTENTION in self.needs:
                found["attention"] = self.rows(attended, row, at.last.to(keys.device), own, end)[:, 0]
            if Signal.TEXT_KEYS in self.needs:
                found["text_keys"] = keys[row].index_select(1, text)
            if Signal.TEXT_VALUES in self.needs and len(text):
                found["text_values"] = values[row].index_select(1, text)
            if Signal.TEXT_ATTENTION in self.needs and len(text):
                found["text_attention"] = self.rows(attended, row, text, own, end)
            for name in ("raw_keys", "text_queries"):
                if name in found:
                    heads = (attended.query if name == "text_queries" else keys).shape[1]
                    apart = found[name].view(len(found[name]), heads, -1)[..., : keys.shape[-1]]  # without its gate
                    found[name] = apart.transpose(0, 1)

    def rows(self, given: Attended, row: int, queries: Tensor, own: Tensor, end: int) -> Tensor:
        """[heads, t, n] float32 attention that the columns `queries` [t] of a row pay to the columns `own` [n]."""
        query, keys = given.query[row].index_select(1, queries), given.key[row]  # [heads, t, d], [kv_heads, k, d]
        grouped = query.reshape(len(keys), -1, query.shape[-1])
        scores = (grouped.float() @ keys.float().transpose(1, 2) * given.scale).view(*query.shape[:2], -1)
        if given.softcap is not None:
            scores = torch.tanh(scores / given.softcap) * given.softcap
        if given.bias is not None:
            scores = scores + given.bias[row % len(given.bias)].index_select(1, queries).float()
        scores = scores + visible_rows(given.mask, row, queries, keys.shape[1], self.chunk, self.past, given.causal)
        if given.sinks is not None:
            sinks = given.sinks.float().view(-1, 1, 1).expand(-1, len(queries), 1)
            scores = torch.cat([scores, sinks], -1)
        return torch.softmax(scores, -1)[..., end - self.chunk + own]


class _Columns:
    """Where an image and the text behind it stand among the columns that are left of the chunk."""

    def __init__(self, prefill: Prefill, image: ImageState, device: torch.device) -> None:
        prompt, kept = prefill.prompt, prefill.kept
        self.row = row = image.span.row

        def columns(places: Tensor) -> Tensor:
            places = places.to(device, non_blocking=True)
            return places if kept is None else kept.columns[row, places]

        self.slots = image.span.slots.to(device, non_blocking=True)  # [m] places of the survivors
        if image.index is not None:
            self.slots = self.slots[image.index]
        self.places = prompt.text_after(image.span).to(device, non_blocking=True)  # [t] of the text behind
        self.own, self.text, self.last = columns(self.slots), columns(self.places), columns(prompt.last(row))


def tokens_reader(
    needs: frozenset[Signal], layer: int | None, prefill: Prefill, hidden: Tensor
) -> Callable[[ImageState], VisualTokens]:
    """A function that gathers, for one image, its rows and the signals in `needs`; what does not exist stays None.

    Args:
        layer: of the stage; None before the language model.
        hidden: [b, k, d] rows that are left in front of it.
    """
    before, whole = prefill.before, prefill.entered

    def read(image: ImageState) -> VisualTokens:
        span, at = image.span, _Columns(prefill, image, hidden.device)
        position = span.layout.position  # None = the grid says it
        if position is not None or image.index is not None:
            position = span.layout.places(hidden.device)
            position = position if image.index is None else position[image.index]
        filled = {} if before is None else before.found_of(image)
        rows, entered = hidden[span.row], None if whole is None else whole[span.row]
        if Signal.TEXT in needs:
            filled["text"] = rows.index_select(0, at.text)
        if Signal.WORDS in needs and entered is not None:
            filled["words"] = entered.index_select(0, at.places.to(entered.device))
        if Signal.EMBEDDINGS in needs and entered is not None:
            filled["embeddings"] = entered.index_select(0, at.slots.to(entered.device))
        encoded = prefill.encoded.get(span.modality)
        if encoded is not None and encoded.vision is not None:
            filled["vision"] = encoded.vision.of(span, image.index)
        features = rows.index_select(0, at.own)
        return VisualTokens(features=features, grid=span.layout.grid, position=position, layer=layer, **filled)

    return read


def projections(attention: Any) -> dict[str, nn.Module]:
    """The layers that make queries and keys of an attention module in one step, by name; empty where there are none."""
    found = {name: getattr(attention, name, None) for name in ("q_proj", "k_proj")}
    return found if all(isinstance(layer, nn.Module) for layer in found.values()) else {}  # type: ignore[return-value]
