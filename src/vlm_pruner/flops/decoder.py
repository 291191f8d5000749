"""The language model: prefill, decoding, cache. `lengths[i]` is the number of tokens that enter decoder layer i."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlm_pruner.config_fields import first as _first
from vlm_pruner.config_fields import required as _required
from vlm_pruner.errors import PlanError, UnsupportedModelError

__all__ = [
    "DecoderCosts",
    "DecoderShape",
    "Experts",
    "LayerCosts",
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


@dataclass(frozen=True)
class LayerCosts:
    """What one decoder layer costs: FLOPs of one token, of one query and key, and numbers that a token caches."""

    token: int  # projections, MLP, experts that a token runs, convolutions; the inside of a recurrence is left out
    pair: int = 0  # attention scores and values; 0 where the layer attends to nothing
    entry: int = 0  # keys and values of its own; 0 where it reads those of another layer
    window: int | None = None  # most entries that it caches
    last: bool = False  # only the row whose logits are asked for runs it: it makes no keys


@dataclass(frozen=True)
class DecoderCosts:
    """The costs of every layer of a decoder, alike or not."""

    layers: tuple[LayerCosts, ...]
    head: int  # FLOPs of one row of the output head
    whole_head: bool = False  # the head is run on every row, not on the last alone
    entered: int = 0  # FLOPs of a token in front of layer 0, where nothing is pruned yet

    @classmethod
    def of(cls, shape: DecoderShape | DecoderCosts) -> DecoderCosts:
        if isinstance(shape, DecoderCosts):
            return shape
        width = shape.heads * shape.head_dim
        entry = 2 * shape.kv_heads * shape.head_dim
        layers = (LayerCosts(_token_flops(shape, i), 4 * width, entry) for i in range(shape.layers))
        return cls(tuple(layers), 2 * shape.hidden * shape.vocab)


def _checked(shape: DecoderShape | DecoderCosts, lengths: Sequence[int]) -> DecoderCosts:
    costs = DecoderCosts.of(shape)
    if len(lengths) != len(costs.layers) or min(lengths) < 0:
        raise PlanError(f"{len(costs.layers)} decoder layers need as many lengths >= 0, got {list(lengths)}")
    return costs


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


def prefill_flops(shape: DecoderShape | DecoderCosts, lengths: Sequence[int], entered: int | None = None) -> int:
    """FLOPs of one row's prefill and its first token: `lengths[i]` tokens enter layer i; the head sees one token.

    Args:
        entered: tokens in front of layer 0, None = as many as enter it.

    Raises:
        PlanError: not one length per layer, or a negative one.
    """
    costs = _checked(shape, lengths)
    total = costs.head * (lengths[-1] if costs.whole_head else 1)
    total += costs.entered * (lengths[0] if entered is None else entered)
    for n, each in zip(lengths, costs.layers, strict=True):
        rows = min(n, 1) if each.last else n
        total += rows * (each.token + each.pair * n)
    return total


def decode_flops(shape: DecoderShape | DecoderCosts, lengths: Sequence[int]) -> int:
    """FLOPs of one decoded token that attends to `lengths[i]` entries in layer i, its own included.

    Raises:
        PlanError: not one length per layer, or a negative one.
    """
    costs = _checked(shape, lengths)
    return (
        costs.head
        + costs.entered
        + sum(each.token + each.pair * n for n, each in zip(lengths, costs.layers, strict=True))
    )


def kv_bytes(shape: DecoderShape | DecoderCosts, lengths: Sequence[int], itemsize: int) -> int:
    """Bytes of keys and values when layer i holds `lengths[i]` entries of `itemsize` bytes each.

    Raises:
        PlanError: not one length per layer, or a negative one.
    """
    costs = _checked(shape, lengths)
    held = (n if each.window is None else min(n, each.window) for n, each in zip(lengths, costs.layers, strict=True))
    return itemsize * sum(each.entry * n for n, each in zip(held, costs.layers, strict=True))


def stage_lengths(layers: int, text: int, visual: int, stages: Sequence[tuple[int | None, int]]) -> list[int]:
    """Tokens entering each decoder layer when every stage `(layer, kept)` leaves `kept` visual tokens from there on.

    >>> stage_lengths(4, text=10, visual=100, stages=[(2, 25)])
    [110, 110, 35, 35]
    """
    kept = [visual] * layers
    for layer, count in sorted(stages, key=lambda stage: stage[0] or 0):
        kept[layer or 0 :] = [count] * (layers - (layer or 0))
    return [text + count for count in kept]
