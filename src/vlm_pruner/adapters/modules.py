"""What families call the parts of a decoder layer: attention, its projections, indexers, experts."""

from __future__ import annotations

from typing import Any

from vlm_pruner.config_fields import first

__all__ = ["active_share", "attention_of", "entry_size", "looked_through", "output_of"]


def attention_of(layer: Any) -> Any:
    """The attention module of a decoder layer; None where it attends to nothing."""
    mixer = getattr(layer, "mixer", None)  # one name for all that a layer can be
    return getattr(layer, "self_attn", mixer if hasattr(mixer, "q_proj") else None)


def output_of(attention: Any) -> Any:
    """The output projection of an attention module; None where it has another name."""
    names = ("o_proj", "out_proj", "dense")
    return next((getattr(attention, name) for name in names if hasattr(attention, name)), None)


def looked_through(indexer: Any) -> int:
    """Of a query that looks at one key before it chooses, or at its part of a pool of keys."""
    query = next((getattr(indexer, name) for name in ("wq_b", "q_proj") if hasattr(indexer, name)), None)
    width = indexer.index_n_heads * indexer.index_head_dim if query is None else query.out_features
    pool = next((getattr(indexer, name) for name in ("index_kpool", "compress_ratio") if hasattr(indexer, name)), 1)
    return int(2 * width // pool)


def entry_size(attention: Any, all_heads: int) -> int:
    """Numbers of a key and a value together, of all heads that are stored."""
    latents, keys = getattr(attention, "kv_a_proj_with_mqa", None), getattr(attention, "k_proj", None)
    if latents is not None:
        return int(latents.out_features)
    if keys is None:  # made in one projection, by groups of heads
        return all_heads // int(getattr(attention, "num_key_value_groups", 1))
    values = getattr(attention, "v_proj", None) or keys  # the values of some layers are their keys
    return int(keys.out_features + values.out_features)


def active_share(config: Any) -> float:
    """Share of the experts that a token runs; 1 where there are none.

    Args:
        config: of the decoder.
    """
    total = first(config, "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    active = first(config, "num_experts_per_tok", "top_k_experts", "moe_topk", "moe_top_k", "moe_k")
    return active / total if total and active else 1.0
