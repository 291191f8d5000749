"""Queries of a decoder layer, made again from what its projection gave: normed and turned as the layer does it.

How that is done differs between families, and between the layers of one: the norm before the rotation or behind it,
halves of a head turned against each other or neighbours, no rotation at all. It is not looked up but found out. The
layer makes its keys the same way, and those are known, because they pass on their way to the cache: the way that makes
them from the key projection is the one for the queries. Where none does, there are no attention rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Way", "as_pair", "attention_of", "find_way", "projections", "remake", "without_gate"]

_NEAR = 0.02  # of the largest key: rounding in bfloat16 stays below, another rotation is far above
_NORMS = (
    ("q_norm", "k_norm"), ("query_layernorm", "key_layernorm"), ("qk_norm", "qk_norm"), ("q_layernorm", "k_layernorm")
)  # fmt: skip


@dataclass(frozen=True)
class Way:
    """How the rows of a projection become queries or keys."""

    turn: Callable[[Tensor, Tensor, Tensor], Tensor] | None  # (rows [h, t, d], cos, sin [t, w]); None = not turned
    norm_first: bool = True


def attention_of(layer: Any) -> Any:
    """The attention module of a decoder layer; None where it attends to nothing."""
    mixer = getattr(layer, "mixer", None)  # one name for all that a layer can be
    return getattr(layer, "self_attn", mixer if hasattr(mixer, "q_proj") else None)


def projections(attention: Any) -> tuple[nn.Module, nn.Module] | None:
    """The layers that make the queries and the keys of an attention module; None where that takes several steps."""
    found = getattr(attention, "q_proj", None), getattr(attention, "k_proj", None)
    latent = hasattr(attention, "kv_b_proj")  # multi-head latent attention
    return found if all(isinstance(f, nn.Module) for f in found) and not latent else None  # type: ignore[return-value]


def remake(
    attention: Any, rows: Tensor, width: int, tables: tuple[Tensor, Tensor] | None, way: Way, key: bool
) -> Tensor:
    """[h, t, width] queries, or keys, of projected rows [t, h * width] with rotary tables of [t, w]."""
    states = rows.view(len(rows), -1, width)
    norm = next((getattr(attention, pair[key]) for pair in _NORMS if hasattr(attention, pair[key])), None)
    if norm is not None and way.norm_first:
        states = norm(states)
    states = states.transpose(0, 1)
    if way.turn is not None and tables is not None:
        states = way.turn(states, *tables)
    if norm is not None and not way.norm_first:
        states = norm(states)
    return states if key else states * getattr(attention, "qk_scale_factor", 1)


def without_gate(attention: Any, rows: Tensor, heads: int, width: int) -> Tensor | None:
    """Projected rows [t, queries * width], without the gate that some layers project along with each query (Qwen3.5).

    Args:
        heads: those of the keys.

    Returns:
        None where the rows are as wide as neither.
    """
    queries = heads * getattr(attention, "num_key_value_groups", rows.shape[1] // (heads * width))
    if rows.shape[1] == 2 * queries * width:
        return rows.view(len(rows), queries, 2 * width)[..., :width].flatten(1)
    return rows if rows.shape[1] == queries * width else None


def as_pair(rotary: Any) -> tuple[Tensor, Tensor] | None:
    """(cos, sin) of rotary tables; of one complex table [b, q, d / 2] with every entry twice."""
    if isinstance(rotary, Tensor) and rotary.is_complex():
        return rotary.real.repeat_interleave(2, -1), rotary.imag.repeat_interleave(2, -1)
    return rotary if isinstance(rotary, tuple) else None


def find_way(attention: Any, rows: Tensor, keys: Tensor, tables: tuple[Tensor, Tensor] | None) -> Way | None:
    """The way that makes `keys` [h, t, d] of projected `rows` [t, h * d], None if no known one does.

    Compares on the host: call it once per layer, not once per prefill.
    """
    turns = [None] if tables is None else [_halves, _neighbours, _neighbours_of_halves, None]
    ways = [Way(turn, first) for first in (True, False) for turn in turns]
    misses = []
    for way in ways:
        try:
            made = remake(attention, rows, keys.shape[-1], tables, way, key=True)
            misses.append((made.float() - keys.float()).abs().max())
        except RuntimeError:  # a norm or a table of another shape
            misses.append(keys.new_full((), torch.inf, dtype=torch.float32))
    miss, best = torch.stack(misses).min(0)
    return ways[int(best)] if bool(miss <= _NEAR * keys.float().abs().max()) else None


def _halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The halves of the leading channels turned against each other: Llama, Qwen."""
    width = cos.shape[-1]
    lead, rest = x[..., :width], x[..., width:]
    half = torch.cat([-lead[..., width // 2 :], lead[..., : width // 2]], -1)
    return torch.cat([lead * cos + half * sin, rest], -1)


def _neighbours(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Neighbouring channels turned against each other, by tables with every entry twice: Cohere."""
    width = cos.shape[-1]
    lead, rest = x[..., :width], x[..., width:]
    crossed = torch.stack([-lead[..., 1::2], lead[..., ::2]], -1).flatten(-2)
    return torch.cat([lead * cos + crossed * sin, rest], -1)


def _neighbours_of_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The same by tables made for halves: GLM."""
    half = cos.shape[-1] // 2
    return _neighbours(x, cos[..., :half].repeat_interleave(2, -1), sin[..., :half].repeat_interleave(2, -1))
