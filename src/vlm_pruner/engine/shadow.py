"""The shadow of a cache layer: where the entries come from that it stores.

It is a layer of the same class whose "keys" are place numbers, so that truncation, rolling, cropping and reordering
happen to both alike, by construction.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import cache_utils

__all__ = ["BESIDE", "STOCK", "shadow_of"]

STOCK = (
    cache_utils.DynamicLayer, cache_utils.DynamicSlidingWindowLayer, cache_utils.DynamicIndexedLayer,
    cache_utils.StaticLayer, cache_utils.StaticSlidingWindowLayer, cache_utils.StaticIndexedLayer,
)  # fmt: skip
BESIDE = tuple(kind for name, kind in vars(cache_utils).items() if name.startswith("LinearAttentionAnd"))


def shadow_of(layer: Any, batch: int) -> Any:
    """A layer of the same kind whose keys [b, 1, n, 1] are place + 1 of the entries so far (0 = empty or padding)."""
    same_kind = isinstance(layer, cache_utils.StaticLayer | cache_utils.DynamicSlidingWindowLayer)
    shadow = copy.copy(layer) if same_kind else cache_utils.DynamicLayer()
    if same_kind and isinstance(layer, BESIDE):  # whose states are not its own
        shadow = object.__new__(next(kind for kind in type(layer).__mro__ if kind in STOCK))
        shadow.__dict__.update(layer.__dict__)
    if isinstance(getattr(layer, "cumulative_length", None), Tensor):
        shadow.cumulative_length = layer.cumulative_length.clone()
    if hasattr(shadow, "idx_keys"):
        shadow.idx_keys = None
    past = int(layer.get_seq_length()) if layer.is_initialized else 0
    if not past:
        shadow.keys = shadow.values = None
        shadow.is_initialized = False
        return shadow
    static = isinstance(layer, cache_utils.StaticLayer)
    stored = min(past, layer.max_cache_len) if static else layer.keys.shape[-2] if layer.is_sliding else past
    length = layer.max_cache_len if static else stored
    places = torch.zeros(batch, 1, length, 1, dtype=torch.long, device=layer.keys.device)
    places[:, :, :stored] = torch.arange(past - stored + 1, past + 1, device=places.device)[:, None]
    shadow.lazy_initialization(places[:, :, :1], places[:, :, :1, :0])
    shadow.keys, shadow.values = places, places[..., :0]
    return shadow
