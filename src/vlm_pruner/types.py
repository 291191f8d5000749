"""What a pruning method reads and what it returns: frozen dataclasses over tensors."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from enum import StrEnum

import torch
from torch import Tensor

from vlm_pruner.errors import InvalidSelectionError

__all__ = ["Selection", "Signal", "VisionSignals", "VisualTokens"]


class Signal(StrEnum):
    """What a method may read beside the features. The value is the name of the field of `VisualTokens`."""

    KEYS = "keys"
    TEXT = "text"
    TEXT_KEYS = "text_keys"
    RAW_KEYS = "raw_keys"
    TEXT_QUERIES = "text_queries"
    VALUES = "values"
    TEXT_VALUES = "text_values"
    ROTARY = "rotary"
    WORDS = "words"
    LAST_QUERY_ATTENTION = "attention"
    TEXT_ATTENTION = "text_attention"
    PREVIOUS_FEATURES = "previous"
    EMBEDDINGS = "embeddings"
    PIXELS = "pixels"
    VISION_FEATURES = "vision.features"
    VISION_KEYS = "vision.keys"
    CLS_ATTENTION = "vision.cls_attention"
    CLS_ATTENTIONS = "vision.cls_attentions"
    VISION_ATTENTION = "vision.attention"
    SHARED_SPACE = "image_embeds"


@dataclass(frozen=True)
class VisionSignals:
    """Signals of the vision tower for the n tokens of one image, in the order of the tokens.

    All come from the layer whose output the projector reads (LLaVA: the second last), unless said otherwise.
    """

    features: Tensor | None = None  # [n, c] patch rows that the projector reads, CLS left out
    cls: Tensor | None = None  # [c] the CLS row beside them, None where the tower has none
    keys: Tensor | None = None  # [heads, n, head_dim] raw key projections of that layer
    cls_keys: Tensor | None = None  # [heads, head_dim] the same of the CLS row
    cls_attention: Tensor | None = None  # [heads, n] softmaxed attention of the CLS row over the patches
    attention: Tensor | None = None  # [layers, n] attention received, mean over heads and query rows, every tower layer
    cls_attentions: Tensor | None = None  # [layers, n] attention of the CLS row, mean over heads, every tower layer


@dataclass(frozen=True)
class VisualTokens:
    """What a method gets to read: the n tokens of ONE image, group of tiles, or video.

    `features` and the positions are always there. A method gets the other fields if it names them in its `needs`.
    """

    features: Tensor  # [n, d] residual-stream rows at this site (float dtype of the model); before the tower, patches
    keys: Tensor | None = None  # [kv_heads, n, head_dim] post-RoPE keys of the layer before, never repeated for GQA
    grid: tuple[int, int, int] | None = None  # (t, h, w) after merging
    position: Tensor | None = None  # [n, 3] (t, y, x) where the grid alone does not say it; -1 = no place
    text: Tensor | None = None  # [t, d] residual-stream rows of the text after the image, at this site
    text_keys: Tensor | None = None  # [kv_heads, t, head_dim] their keys, as `keys`
    raw_keys: Tensor | None = None  # [kv_heads, n, head_dim] `keys` as projected: neither normed nor rotated
    text_queries: Tensor | None = None  # [heads, t, head_dim] queries of the text in the layer before, as projected
    values: Tensor | None = None  # [kv_heads, n, head_dim] values of the layer before
    text_values: Tensor | None = None  # [kv_heads, t, head_dim] the same of the text after the image
    rotary: Tensor | None = None  # [2, n, width] cosines and sines that rotate the keys of the layer before
    words: Tensor | None = None  # [t, d] input embeddings of the same text tokens
    attention: Tensor | None = None  # [heads, n] softmaxed attention of the last prompt token in the layer before
    text_attention: Tensor | None = None  # [heads, t, n] the same of every text row after the image
    previous: Tensor | None = None  # [n, d] the rows that entered the layer before
    embeddings: Tensor | None = None  # [n, d] the rows that entered the language model (projector output)
    pixels: Tensor | None = None  # [n, p, 3] float32 in 0 ... 1 under each token, before the vision tower alone
    vision: VisionSignals | None = None
    image_embeds: Tensor | None = (
        None  # [n, c] patches in a space shared with the question (CLIP), if the caller has one
    )
    text_embeds: Tensor | None = None  # [m, c] the question in that space, one row per segment of the text tower
    word_embeds: Tensor | None = None  # [m, l, c] every position of those segments in that space, if the caller has it
    layer: int | None = None  # decoder layer at whose input this is; None = before the language model
    extra: dict[str, object] = field(default_factory=dict, repr=False)  # out-of-tree signals, by name

    def __len__(self) -> int:
        return self.features.shape[0]

    @property
    def device(self) -> torch.device:
        return self.features.device

    def coordinates(self) -> Tensor:
        """[n, 3] float32 (t, y, x) of every token: `position`, else the raster order of `grid`, else one row."""
        n = len(self)
        if self.position is not None:
            return self.position.to(self.device, torch.float32)
        t, h, w = self.grid if self.grid is not None else (1, 1, n)
        if t * h * w != n:
            raise InvalidSelectionError(f"grid {self.grid} has {t * h * w} places but there are {n} tokens")
        i = torch.arange(n, device=self.device)
        return torch.stack([i // (h * w), i // w % h, i % w], 1).float()


@dataclass(frozen=True)
class Selection:
    """The result of a method: which of n tokens are kept, and optionally the rows that replace them."""

    index: Tensor  # [k] kept tokens, ascending, unique, int64
    order: Tensor | None = None  # [k] the same tokens in the order of selection
    features: Tensor | None = None  # [k, d] replacement rows in `index` order, only from merging methods
    source: Tensor | None = None  # [n] token -> slot in `index` that represents it, -1 if dropped without trace

    def __len__(self) -> int:
        return self.index.shape[0]

    def _repr_html_(self) -> str:
        # A notebook asked: the drawing room is above this one, and is looked up by name only now.
        return str(importlib.import_module("vlm_pruner.viz.notebook").selection_html(self))

    def validate(
        self, total: int, keep: int | None = None, width: int | None = None, *, values: bool = True
    ) -> Selection:
        """Return self if this is a valid selection of `keep` out of `total` tokens with `width` channels.

        Args:
            values: check the indices themselves, too, which waits for the device; else only types and shapes.

        Raises:
            InvalidSelectionError: wrong type, dtype or shape, duplicates, not ascending, out of range, wrong count.
        """
        index = self.index
        for name in ("index", "order", "features", "source"):
            value = getattr(self, name)
            if not isinstance(value, Tensor) and (value is not None or name == "index"):
                wanted = "an int64 tensor [k]" if name == "index" else "a tensor"
                raise InvalidSelectionError(f"{name} must be {wanted}, got a {type(value).__name__}")
        if index.dim() != 1 or index.dtype != torch.int64:
            raise InvalidSelectionError(f"index must be int64 [k], got {index.dtype} {tuple(index.shape)}")
        if keep is not None and len(self) != keep:
            raise InvalidSelectionError(f"{len(self)} tokens selected, {keep} asked for")
        if not len(self) or len(self) > total:
            raise InvalidSelectionError(f"{len(self)} tokens selected out of {total}")
        if values and not bool(torch.stack([(index[1:] > index[:-1]).all(), index[0] >= 0, index[-1] < total]).all()):
            raise InvalidSelectionError(
                f"index must be ascending, unique and inside [0, {total}), got {index.tolist()}"
            )
        for name, value, shape in (("order", self.order, len(self)), ("source", self.source, total)):
            if value is not None and tuple(value.shape) != (shape,):
                raise InvalidSelectionError(f"{name} must have shape ({shape},), got {tuple(value.shape)}")
        if self.features is not None:
            got = tuple(self.features.shape)
            if len(got) != 2 or got[0] != len(self) or width not in (None, got[1]):
                wanted = f"({len(self)}, {width or 'width'})"
                raise InvalidSelectionError(f"features must have shape {wanted}, got {got}")
        return self
