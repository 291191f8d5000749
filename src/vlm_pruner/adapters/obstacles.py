"""What in a model's configuration makes pruning impossible, but for what its family has a rule for."""

from __future__ import annotations

from typing import Any

from vlm_pruner.adapters import Adapter, families

__all__ = ["STATES", "obstacle"]

_ATTENTION = {  # what was dropped is hidden by the mask, or was never in front of what chooses among keys
    "full_attention", "sliding_attention", "chunked_attention", "indexed_attention"
}  # fmt: skip
STATES = {"linear_attention", "conv", "moe", "mlp"}  # see a shorter sequence and nothing else


def obstacle(config: Any) -> str | None:
    """What in a model's configuration makes pruning impossible, None if nothing does."""
    kind, text = config.model_type, config.get_text_config()
    family = families().get(kind, Adapter)
    if getattr(text, "cross_attention_layers", None):
        return f"{kind} reads its image through cross-attention: the decoder's sequence has no visual tokens to prune"
    if getattr(config, "is_encoder_decoder", False):
        return f"{kind} is an encoder-decoder model: only decoder-only models can be pruned"
    modes: list[str | None] = getattr(text, "kv_sharing_modes", None) or []  # of every layer; "store" has its own keys
    shared = getattr(text, "num_kv_shared_layers", 0)
    if not family.shares and (shared or any(mode not in (None, "store") for mode in modes)):
        return f"{kind}: decoder layers that share keys and values cannot be pruned"
    known = _ATTENTION | STATES | family.attends | family.blocks
    types = set(getattr(text, "layer_types", None) or ["full_attention"]) - known
    if types:
        return (
            f"{kind}: layers of type {', '.join(sorted(types))} cannot be pruned: no rule is known for them, as it is "
            f"for {', '.join(sorted(_ATTENTION | STATES))}"
        )
    parts = ("vision_config", "vq_config", "patch_size")  # a tower, a codebook, or patches alone
    if all(getattr(config, part, None) is None for part in parts):
        return f"{kind} takes no images: there are no visual tokens to prune"
    return None
