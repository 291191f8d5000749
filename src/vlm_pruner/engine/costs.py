"""What a decoder's layers cost, read off their modules: one rule for every family, whatever its layers are.

A configuration says what a model is meant to be, in fields that every family names and means in its own way; the
modules are what runs. Counted are matrix products, as in `vlm_pruner.flops`.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from vlm_pruner.adapters.modules import active_share, entry_size, looked_through, output_of
from vlm_pruner.engine.support import Parts, take_apart
from vlm_pruner.errors import UnsupportedModelError
from vlm_pruner.flops import DecoderCosts, LayerCosts

__all__ = ["costs_of", "decoder_costs"]


def decoder_costs(model: nn.Module) -> DecoderCosts:
    """The costs of the language model inside a vision-language model.

    Raises:
        UnsupportedModelError: a model that cannot be pruned, or whose layers have no count.
    """
    return costs_of(take_apart(model))


def costs_of(parts: Parts) -> DecoderCosts:
    """The same for a model that was taken apart."""
    config, layers = parts.text_config, tuple(_layer(parts, index) for index in range(len(parts.layers)))
    inside = {id(module) for layer in parts.layers for module in layer.modules()}
    outside = (module for module in parts.text.modules() if id(module) not in inside)  # a codebook's convolutions, too
    around = sum(_size(module, w) for module in outside for w in module.parameters(recurse=False) if w.dim() == 2)
    whole = "logits_to_keep" not in inspect.signature(parts.model.forward).parameters
    return DecoderCosts(layers, 2 * config.vocab_size * config.hidden_size, whole, 2 * around)


def _layer(parts: Parts, index: int) -> LayerCosts:
    layer: Any = parts.layers[index]
    token, attention = 2 * _products(parts, layer), parts.attention(index)
    if parts.follows(index) or attention is None:
        return LayerCosts(token)
    output = output_of(attention)
    if output is None:
        raise UnsupportedModelError(f"{parts.name}: the attention {type(attention).__name__} has no output projection")
    value_dim = getattr(attention, "v_head_dim", None) or attention.head_dim
    key_dim = getattr(attention, "qk_head_dim", None) or value_dim
    pair = 2 * output.in_features // value_dim * (key_dim + value_dim)
    measured = parts.adapter.distances(attention)
    if measured is not None:  # run for every head
        token += 2 * (output.in_features // value_dim - 1) * _products(parts, measured)
    if getattr(attention, "indexer", None) is not None:
        pair += looked_through(attention.indexer)
    own = parts.sources[index] == index
    entry = entry_size(attention, output.in_features // value_dim * (key_dim + value_dim)) if own else 0
    return LayerCosts(token, pair, entry, _window(parts, index), parts.adapter.goes_on_alone(parts.text) and not own)


def _window(parts: Parts, index: int) -> int | None:
    """Entries that a sliding layer holds; the newest token is not one of the window in front of it."""
    kind, width = parts.kind(index), getattr(parts.text_config, "sliding_window", None)
    if kind == "chunked_attention":
        return int(parts.text_config.attention_chunk_size) - 1
    return width - 1 if width and kind in (None, "sliding_attention", "hybrid_sliding") else None


def _products(parts: Parts, layer: nn.Module) -> int:
    """Multiply-adds of one token in the weights of a layer; of experts, those that a token is sent to."""
    share = active_share(parts.text_config)
    names = [name.rsplit(".", 1)[-1] for name, _ in layer.named_modules()]
    if {"text_moe", "vision_moe"} <= set(names):
        raise UnsupportedModelError(
            f"{parts.name}: words and pictures have separate experts, whose FLOPs are not counted"
        )
    total = 0.0
    for name, module in layer.named_modules():
        own = sum(_size(module, weight) for weight in module.parameters(recurse=False))
        total += own * (share if "experts" in name.split(".") else 1.0)
    return round(total)


def _size(module: Any, weight: Tensor) -> int:
    """Multiply-adds of one row in a weight. Packed weights of quantised layers have the size that they stand for."""
    if weight.dim() < 2 or "Norm" in type(module).__name__:
        return 0
    if isinstance(module, nn.Embedding):
        return 0
    inside, outside = getattr(module, "in_features", None), getattr(module, "out_features", None)
    return weight.numel() if inside is None or outside is None else int(inside * outside)
