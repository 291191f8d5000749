"""What a vision tower of the CLIP or SigLIP shape calls its parts."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["deepest", "encoder_layers", "has_cls", "heads_of", "scale_of"]


def deepest(layer: int | list[int] | None, config: Any) -> int:
    """The hidden state that the projector reads; the last of several."""
    names = ("vision_feature_layer", "vision_feature_layers")
    given = [layer, *(getattr(config, name, None) for name in names)]
    found = next((value for value in given if value is not None), -1)
    return found if isinstance(found, int) else int(found[-1])


def encoder_layers(tower: nn.Module) -> nn.ModuleList | None:
    """Its layers, if their attention projects queries and keys apart; None if the tower is of another shape."""
    for module in tower.modules():
        if isinstance(module, nn.ModuleList) and len(module) and hasattr(module[0], "self_attn"):
            attention = module[0].self_attn
            return module if hasattr(attention, "q_proj") and hasattr(attention, "k_proj") else None
    return None


def has_cls(tower: nn.Module | None) -> bool:
    """Does a row that is no patch stand in front of the patches?"""
    return tower is not None and any(name.endswith("class_embedding") for name, _ in tower.named_parameters())


def scale_of(attention: Any) -> float:
    """What the products of queries and keys are multiplied with."""
    return float(getattr(attention, "scale", None) or attention.head_dim**-0.5)


def heads_of(projected: Tensor, attention: Any) -> Tensor:
    """[m, rows, heads * head_dim] -> [m, heads, rows, head_dim]."""
    return projected.view(*projected.shape[:-1], -1, attention.head_dim).transpose(1, 2)
