"""What in a model's configuration makes pruning impossible, whatever an adapter says of where its tokens lie."""

from __future__ import annotations

from typing import Any

__all__ = ["STATES", "obstacle"]

_ATTENTION = {  # what was dropped is hidden by the mask, or was never in front of what chooses among keys
    "full_attention", "sliding_attention", "chunked_attention", "indexed_attention"
}  # fmt: skip
STATES = {"linear_attention", "conv", "moe", "mlp"}  # see a shorter sequence and nothing else


def obstacle(config: Any, shares: bool = False, known: frozenset[str] = frozenset()) -> str | None:
    """What in a model's configuration makes pruning impossible, None if nothing does.

    Args:
        shares: it is known which layers read the keys of which.
        known: kinds of layers of this family alone that can be pruned.
    """
    kind, text = config.model_type, config.get_text_config()
    if getattr(text, "cross_attention_layers", None):
        return f"{kind} reads its image through cross-attention: the decoder's sequence has no visual tokens to prune"
    if getattr(config, "is_encoder_decoder", False):
        return f"{kind} is an encoder-decoder model: only decoder-only models can be pruned"
    modes: list[str | None] = getattr(text, "kv_sharing_modes", None) or []  # of every layer; "store" has its own keys
    shared = getattr(text, "num_kv_shared_layers", 0)
    if not shares and (shared or any(mode not in (None, "store") for mode in modes)):
        return f"{kind}: decoder layers that share keys and values cannot be pruned"
    types = set(getattr(text, "layer_types", None) or ["full_attention"]) - _ATTENTION - STATES - known
    if types:
        return (
            f"{kind}: layers of type {', '.join(sorted(types))} cannot be pruned: no rule is known for them, as it is "
            f"for {', '.join(sorted(_ATTENTION | STATES))}"
        )
    parts = ("vision_config", "vq_config", "patch_size")  # a tower, a codebook, or patches alone
    if all(getattr(config, part, None) is None for part in parts):
        return f"{kind} takes no images: there are no visual tokens to prune"
    return None
