"""The language model: prefill, decoding, cache. `lengths[i]` is the number of tokens that enter decoder layer i."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlm_pruner.config_fields import first as _first
from vlm_pruner.config_fields import required as _required
from vlm_pruner.errors import PlanError, UnsupportedModelError

__all__ = [
    "DecoderShape",
    "Experts",
    "decode_flops",
    "kv_bytes",
    "prefill_flops",
    "stage_lengths",
]


_SQUARES = {"full_attention", "sliding_attention", "chunked_attention"}  # kinds of layers that are counted
_UNLIKE = {"kv_lora_rank": "latent attention", "is_heterogeneous": "layers of several widths",
           "num_kv_shared_layers": "shared keys"}  # fmt: skip


@dataclass(frozen=True)
class Experts:
    """Mixture-of-experts MLP: every token runs `active` of `total` experts, and the shared one where there is one."""

    total: int
    active: int
    intermediate: int
    shared_intermediate: int = 0
    layers: frozenset[int] | None = None  # decoder layers that have experts; None = all


@dataclass(frozen=True)
class DecoderShape:
    """The widths of a decoder-only language model that decide its cost."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    gated: bool = True  # three MLP matrices (gate, up, down) rather than two
    experts: Experts | None = None

    @classmethod
    def from_config(cls, config: Any, *, gated: bool = True) -> DecoderShape:
        """Shape of a transformers text config, or of the text part of a vision-language config.

        Raises:
            UnsupportedModelError: a field is missing, or layers are not alike, of plain or grouped-query attention.
        """
        config = _first(config, "text_config", default=config)
        unlike = [f"{what} ({field})" for field, what in _UNLIKE.items() if _first(config, field)]
        unlike += sorted(set(_first(config, "layer_types", default=())) - _SQUARES)
        if unlike:
            raise UnsupportedModelError(f"{type(config).__name__}: {unlike[0]} has no FLOP formula")
        hidden, heads = _required(config, "hidden_size"), _required(config, "num_attention_heads")
        return cls(
            layers=_required(config, "num_hidden_layers"),
            hidden=hidden,
            intermediate=_required(config, "intermediate_size", "moe_intermediate_size"),
            heads=heads,
            kv_heads=int(_first(config, "num_key_value_heads", default=heads)),
            head_dim=int(_first(config, "head_dim", default=hidden // heads)),
            vocab=_required(config, "vocab_size"),
            gated=gated,
            experts=_experts(config),
        )


def _experts(config: Any) -> Experts | None:
    total = _first(config, "num_experts", "num_local_experts", "n_routed_experts")
    if not total:
        return None
    width = _required(config, "moe_intermediate_size", "intermediate_size")
    shared = _first(config, "shared_expert_intermediate_size", default=0)
    step = _first(config, "decoder_sparse_step", default=1)
    dense = set(_first(config, "mlp_only_layers", default=()))
    layers = range(_required(config, "num_hidden_layers"))
    return Experts(
        total=int(total),
        active=_required(config, "num_experts_per_tok"),
        intermediate=width,
        shared_intermediate=int(shared or width * _first(config, "n_shared_experts", default=0)),
        layers=frozenset(i for i in layers if i not in dense and (i + 1) % step == 0),
    )


def _check_lengths(shape: DecoderShape, lengths: Sequence[int]) -> None:
    if len(lengths) != shape.layers or min(lengths) < 0:
        raise PlanError(f"{shape.layers} decoder layers need as many lengths >= 0, got {list(lengths)}")


def _token_flops(shape: DecoderShape, layer: int) -> int:
    """FLOPs of one token in one layer, attention scores and values left out."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    projections = 2 * shape.hidden * (2 * queries + 2 * keys)
    matrices = 3 if shape.gated else 2
    experts = shape.experts
    if experts is None or (experts.layers is not None and layer not in experts.layers):
        return projections + 2 * matrices * shape.hidden * shape.intermediate
    width = experts.active * experts.intermediate + experts.shared_intermediate
    gates = experts.total + bool(experts.shared_intermediate)  # the router, and the gate of the shared expert
    return projections + 2 * shape.hidden * (matrices * width + gates)


def prefill_flops(shape: DecoderShape, lengths: Sequence[int]) -> int:
    """FLOPs of one row's prefill and its first token: `lengths[i]` tokens enter layer i; the head sees one token.

    Raises:
        PlanError: not one length per layer, or a negative one.
    """
    _check_lengths(shape, lengths)
    square = 4 * shape.heads * shape.head_dim  # scores and values, per pair of tokens
    head = 2 * shape.hidden * shape.vocab
    return head + sum(n * _token_flops(shape, i) + square * n * n for i, n in enumerate(lengths))


def decode_flops(shape: DecoderShape, lengths: Sequence[int]) -> int:
    """FLOPs of one decoded token that attends to `lengths[i]` entries in layer i, its own included.

    Raises:
        PlanError: not one length per layer, or a negative one.
    """
    _check_lengths(shape, lengths)
    square = 4 * shape.heads * shape.head_dim
    head = 2 * shape.hidden * shape.vocab
    return head + sum(_token_flops(shape, i) + square * n for i, n in enumerate(lengths))


def kv_bytes(shape: DecoderShape, lengths: Sequence[int], itemsize: int) -> int:
    """Bytes of keys and values when layer i holds `lengths[i]` entries of `itemsize` bytes each.

    Raises:
        PlanError: not one length per layer, or a negative one.
    """
    _check_lengths(shape, lengths)
    return 2 * shape.kv_heads * shape.head_dim * itemsize * sum(lengths)


def stage_lengths(layers: int, text: int, visual: int, stages: Sequence[tuple[int | None, int]]) -> list[int]:
    """Tokens entering each decoder layer when every stage `(layer, kept)` leaves `kept` visual tokens from there on.

    >>> stage_lengths(4, text=10, visual=100, stages=[(2, 25)])
    [110, 110, 35, 35]
    """
    kept = [visual] * layers
    for layer, count in sorted(stages, key=lambda stage: stage[0] or 0):
        kept[layer or 0 :] = [count] * (layers - (layer or 0))
    return [text + count for count in kept]
