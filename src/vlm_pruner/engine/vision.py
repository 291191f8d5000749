"""Signals of a CLIP- or SigLIP-shaped vision tower: its features, keys, and rows of its attention.

Hooks listen for the time of one encoding. Attention is recomputed from the query and key projections: the CLS row
alone, or, where a method asks for the attention that every patch receives, block by block and summed at once; no n x n
map is ever kept. Several tiles lie behind one another; a token without a patch behind it (a newline) has zeros. Where
the frames of a video are pooled, their attention is resized with them.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlm_pruner.adapters.base import Layout, Modality, VisualSpan
from vlm_pruner.adapters.towers.encoder import deepest, encoder_layers, has_cls, heads_of, scale_of
from vlm_pruner.engine.signals import VISION
from vlm_pruner.engine.support import Parts
from vlm_pruner.engine.tower import Chosen
from vlm_pruner.types import Signal, VisionSignals

__all__ = ["EncodedVision", "VisionTap"]

_BLOCK = 64  # query rows of received attention at a time


@dataclass
class EncodedVision:
    """What was heard during one encoding of P patches in each of m tiles."""

    features: Tensor | None = None  # [m, P, c]
    cls: Tensor | None = None  # [m, c]
    keys: Tensor | None = None  # [m, heads, P, head_dim]
    cls_keys: Tensor | None = None  # [m, heads, head_dim]
    cls_attention: Tensor | None = None  # [m, heads, P]
    received: list[Tensor] = field(default_factory=list)  # [m, P] of every layer
    from_cls: list[Tensor] = field(default_factory=list)  # [m, P] of every layer

    def of(self, span: VisualSpan, survivors: Tensor | None) -> VisionSignals:
        """The signals of one image, for all of its tokens or the survivors [k] among them."""
        layout = span.layout
        tiles = slice(span.tile, span.tile + layout.tiles)
        patch = torch.arange(layout.tokens, device="cpu") if layout.patch is None else layout.patch

        def rows(value: Tensor | None, tile: int, axis: int, resize: bool = False) -> Tensor | None:
            """Put tiles behind one another along the patches (`axis`), and pick the patch behind every token."""
            if value is None:
                return None
            apart = value.narrow(tile, tiles.start, layout.tiles).movedim(tile, axis - 1)
            flat, index = apart.flatten(axis - 1, axis), patch
            if layout.patch is None and flat.shape[axis - 1] != layout.tokens:
                if not (resize and _are_frames(apart, layout)):
                    return None  # pooled: no one patch stands behind a token
                flat, index = _resized(apart, layout), _cells(layout)
            index = index.to(flat.device, non_blocking=True)
            index = index if survivors is None else index[survivors.to(index.device)]
            shape = [1] * flat.dim()
            shape[axis - 1] = -1
            return flat.index_select(axis - 1, index.clamp(min=0)) * (index >= 0).view(shape)

        return VisionSignals(
            features=rows(self.features, 0, 1),
            cls=None if self.cls is None else self.cls[tiles.start],
            keys=rows(self.keys, 0, 2),
            cls_keys=None if self.cls_keys is None else self.cls_keys[tiles.start],
            cls_attention=rows(self.cls_attention, 0, 2, resize=True),
            attention=rows(_stacked(self.received), 1, 2, resize=True),
            cls_attentions=rows(_stacked(self.from_cls), 1, 2, resize=True),
        )


def _are_frames(attention: Tensor, layout: Layout) -> bool:
    """Are the m squares of P patches [x, m, P] the frames of a video, each shown by one raster of tokens?"""
    m, patches = attention.shape[1:]
    return m == layout.grid[0] and math.isqrt(patches) ** 2 == patches


def _resized(attention: Tensor, layout: Layout) -> Tensor:
    """[x, t h w] attention over the grid, from that over square frames [x, t, P], interpolated as features are."""
    x, frames, patches = attention.shape
    square = attention.float().reshape(x, frames, math.isqrt(patches), -1)
    return functional.interpolate(square, layout.grid[1:], mode="bilinear", align_corners=False).flatten(1)


def _cells(layout: Layout) -> Tensor:
    """[n] cell of the grid that every token lies in, -1 where it lies in none (a newline), on the host."""
    if layout.position is None:
        return torch.arange(layout.tokens, device="cpu")
    size = torch.tensor(layout.grid, device="cpu")
    place = layout.position.round().long()
    inside = (place == layout.position).all(1) & (place >= 0).all(1) & (place < size).all(1)
    return ((place[:, 0] * size[1] + place[:, 1]) * size[2] + place[:, 2]).where(inside, -1)


class VisionTap:
    """Listens to the vision tower while it encodes, if a method asked for that and the tower has a known shape."""

    def __init__(
        self,
        parts: Parts,
        read: frozenset[Signal],
        layer: int | list[int] | None = None,
        modality: Modality = "image",
    ) -> None:
        self._read = read & VISION
        self._undo = ExitStack()
        self._heard: dict[str, Tensor] = {}
        self._out = EncodedVision()
        adapter = parts.adapter
        find = adapter.video_tower if modality == "video" else adapter.vision_tower
        self._tower = find(parts.base) if self._read else None
        self._layers = encoder_layers(self._tower) if self._tower is not None else None
        self._projector = getattr(parts.base, "multi_modal_projector", None)
        number = deepest(layer, parts.config)
        # hidden_states[0] are the embeddings: number i >= 1 is the output of layer i - 1.
        self._index = number - 1 if number > 0 else len(self._layers or ()) + number

    def __enter__(self) -> VisionTap:
        if self._layers is None:
            return self
        layer: Any = self._layers[self._index]
        if self._projector is not None:
            self._undo.callback(self._projector.register_forward_pre_hook(self._projected).remove)
        self._hear(layer, self._heard, "rows")
        self._hear(layer.self_attn.k_proj, self._heard, "keys")
        self._hear(layer.self_attn.q_proj, self._heard, "queries")
        if self._read & {Signal.VISION_ATTENTION, Signal.CLS_ATTENTIONS}:
            for each in self._layers:
                self._listen_attention(each)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def _hear(self, module: nn.Module, heard: dict[str, Tensor], name: str) -> None:
        """Have `heard` hold what `module` has given last."""

        def hook(module: nn.Module, args: Any, output: Any) -> None:
            heard[name] = (output[0] if isinstance(output, tuple) else output).detach()

        self._undo.callback(module.register_forward_hook(hook).remove)

    def _projected(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._out.features = args[0].detach()

    def _listen_attention(self, layer: Any) -> None:
        own: dict[str, Tensor] = {}
        attention = layer.self_attn
        self._hear(attention.q_proj, own, "queries")
        self._hear(attention.k_proj, own, "keys")

        def add_up(module: nn.Module, args: Any, output: Any) -> None:
            queries, keys = (heads_of(own.pop(name), attention) for name in ("queries", "keys"))
            if Signal.VISION_ATTENTION in self._read:
                self._out.received.append(_received(queries, keys, scale_of(attention)))
            if Signal.CLS_ATTENTIONS in self._read and has_cls(self._tower):
                self._out.from_cls.append(_first_row(queries, keys, scale_of(attention)).mean(1))

        self._undo.callback(attention.register_forward_hook(add_up).remove)

    def signals(self, cut: Chosen | None = None) -> EncodedVision | None:
        """What was heard; None if nothing was to be, or the tower is of another shape.

        Args:
            cut: what was kept out of the tower: its patches have zeros.
        """
        if self._layers is None or "rows" not in self._heard:
            return None
        out, attention = self._out, self._layers[self._index].self_attn
        rows = self._heard["rows"]
        if rows.dim() != 3:
            return None
        queries, keys = heads_of(self._heard["queries"], attention), heads_of(self._heard["keys"], attention)
        first = int(has_cls(self._tower))
        spread = (lambda heard, axis: heard) if cut is None else cut.spread
        if first:
            out.cls, out.cls_keys = rows[:, 0], keys[:, :, 0]
            out.cls_attention = spread(_first_row(queries, keys, scale_of(attention)), 2)
        out.keys = spread(keys[:, :, first:], 2)
        out.received = [spread(each[:, first:], 1) for each in out.received]
        out.from_cls = [spread(each, 1) for each in out.from_cls]
        if out.features is not None and out.features.shape[1] == out.keys.shape[2] + first:
            out.features = out.features[:, first:]
        return out


def _stacked(layers: list[Tensor]) -> Tensor | None:
    """[layers, m, P] of what was heard in every layer; None if nothing was."""
    return torch.stack(layers) if layers else None


def _first_row(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """[m, heads, P] softmaxed attention of the first row, which is CLS, over all others."""
    scores = queries[:, :, :1].float() @ keys.float().transpose(2, 3) * scale
    return scores.softmax(-1)[:, :, 0, 1:]


def _received(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """[m, rows] attention that every row receives, mean over heads and query rows."""
    total = torch.zeros(keys.shape[0], keys.shape[2], dtype=torch.float32, device=keys.device)
    for block in torch.split(queries, _BLOCK, 2):
        total += (block.float() @ keys.float().transpose(2, 3) * scale).softmax(-1).sum((1, 2))
    return total / (queries.shape[1] * queries.shape[2])
