"""FLOPs and KV bytes by formula: exact integers, no torch.

One multiply-add is 2 FLOPs. Counted are the matrix products: projections, attention scores and values, MLPs, patch
embedding, the output head. Norms, activations, rotary embeddings and softmax are left out (below 1 % at these widths).
Attention counts the full square of the length, masked half included: what `torch.utils.flop_counter` reports and what
dense kernels execute. Papers of the field print multiply-adds (half of ours) of the image tokens alone:
FastV (arXiv:2403.06764, Eq. 5) with two MLP matrices, PyramidDrop (arXiv:2410.17247, Eq. 1) with the three that a
gated MLP has.

`lengths[i]` is the number of tokens that enter decoder layer i, so a plan with any number of stages is one list.
"""

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
    "ProjectorShape",
    "VisionShape",
    "decode_flops",
    "kv_bytes",
    "prefill_flops",
    "projector_flops",
    "stage_lengths",
    "vision_flops",
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


@dataclass(frozen=True)
class VisionShape:
    """The widths of a vision transformer that decide its cost."""

    layers: int
    hidden: int
    intermediate: int
    patch_values: int  # numbers in one patch: channels * frames * side * side
    patch_size: int
    extra_tokens: int = 0  # CLS
    gated: bool = False
    window: int = 0  # side of an attention window in patches, 0 = every layer attends to its whole frame
    full_layers: frozenset[int] = frozenset()  # with windows: layers that attend to the whole frame

    @classmethod
    def from_config(cls, config: Any, *, extra_tokens: int | None = None, gated: bool | None = None) -> VisionShape:
        """Shape of a transformers vision config.

        A config does not say outright whether the tower has a CLS row or a gated MLP: fields that only towers with a
        CLS row carry (`projection_dim`, `use_mean_pooling`) and the `silu` activation decide. Pass the truth where
        that is wrong. The pooling head of a SigLIP tower, which no language model reads, is left out.

        Raises:
            UnsupportedModelError: a field is missing.
        """
        hidden = _required(config, "embed_dim", "hidden_size")
        side, merge = _side(_first(config, "patch_size", default=0)), _first(config, "spatial_merge_size", default=1)
        if not side:
            raise UnsupportedModelError(f"{type(config).__name__} has no patch_size")
        frames = _first(config, "temporal_patch_size", default=1)
        channels = _first(config, "in_channels", "num_channels", default=3)
        if extra_tokens is None:
            cls_row = _first(config, "projection_dim", "use_mean_pooling") is not None
            extra_tokens = int(cls_row and not hasattr(config, "vision_use_head"))
        window = _first(config, "window_size", default=0) // (side * merge) * merge
        return cls(
            layers=_required(config, "depth", "num_hidden_layers"),
            hidden=hidden,
            intermediate=int(_first(config, "intermediate_size", default=0) or hidden * _required(config, "mlp_ratio")),
            patch_values=channels * frames * side * side,
            patch_size=side,
            extra_tokens=extra_tokens,
            gated=_first(config, "hidden_act") == "silu" if gated is None else gated,
            window=window,
            full_layers=frozenset(_first(config, "fullatt_block_indexes", default=())),
        )


def _side(patch_size: int | Sequence[int]) -> int:
    return int(patch_size) if isinstance(patch_size, int) else int(patch_size[0])


def _window_pairs(height: int, width: int, window: int) -> int:
    """Token pairs inside the windows of one frame; windows at the lower and right edge are cut off."""

    def squares(size: int) -> int:
        return size // window * window**2 + (size % window) ** 2

    return squares(height) * squares(width)


def vision_flops(shape: VisionShape, grid: tuple[int, int, int]) -> int:
    """FLOPs of the vision tower on one image, tile or video of (t, h, w) patches, before any merging.

    Frames attend to themselves only.
    """
    t, h, w = grid
    patches = t * h * w
    frame = h * w + shape.extra_tokens
    rows = t * frame
    token = 8 * shape.hidden**2 + (6 if shape.gated else 4) * shape.hidden * shape.intermediate
    whole = len(shape.full_layers) if shape.window else shape.layers
    pairs = whole * t * frame**2
    if shape.window:
        pairs += (shape.layers - whole) * t * _window_pairs(h, w, shape.window)
    return 2 * patches * shape.patch_values * shape.hidden + shape.layers * rows * token + 4 * shape.hidden * pairs


@dataclass(frozen=True)
class ProjectorShape:
    """Linear layers between the vision tower and the language model, applied to each group of `merge` patches."""

    linears: tuple[tuple[int, int], ...]  # (in, out)
    merge: int = 1  # patches that become one visual token
    copies: int = 1  # further mergers of the same size on intermediate layers

    @classmethod
    def from_config(cls, config: Any) -> ProjectorShape:
        """Shape of the projector of a transformers vision-language config.

        Raises:
            UnsupportedModelError: a field is missing.
        """
        vision, text = _first(config, "vision_config"), _first(config, "text_config")
        if vision is None or text is None:
            raise UnsupportedModelError(f"{type(config).__name__} has no vision_config and text_config")
        width, out = _required(vision, "embed_dim", "hidden_size"), _required(text, "hidden_size")
        if (side := _first(vision, "spatial_merge_size", default=1)) > 1:
            wide = width * side**2
            copies = 1 + len(_first(vision, "deepstack_visual_indexes", default=()))
            return cls(((wide, wide), (wide, out)), side**2, copies)
        if (ratio := _first(config, "downsample_ratio")) is not None:
            merge = round(1 / ratio) ** 2
            return cls(((width * merge, out), (out, out)), merge)
        if (scale := _first(config, "scale_factor")) is not None:
            return cls(((width * scale**2, out),), scale**2)
        if (pooled := _first(config, "mm_tokens_per_image")) is not None:
            patches = (vision.image_size // _side(vision.patch_size)) ** 2
            return cls(((width, out),), patches // pooled)
        if _first(vision, "projection_dim") == out and hasattr(vision, "vision_use_head"):
            return cls(((width, out),))
        layers = _first(config, "vision_feature_layer", default=-1)
        return cls(((width * (1 if isinstance(layers, int) else len(layers)), out), (out, out)))


def projector_flops(shape: ProjectorShape, patches: int) -> int:
    """FLOPs of projecting `patches` rows of the vision tower into `patches // merge` visual tokens."""
    return 2 * shape.copies * (patches // shape.merge) * sum(a * b for a, b in shape.linears)
