"""The call of a module by names; of a decoder layer: its hidden states, and what has one entry per query."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from vlm_pruner.engine.forward import Forward
from vlm_pruner.engine.rows import Kept, gather_rows
from vlm_pruner.engine.stored import cut_padding
from vlm_pruner.engine.support import Parts
from vlm_pruner.errors import UnsupportedModelError

__all__ = [
    "Arguments", "apart", "bind", "by_name", "cut_queries", "hidden_of", "query_places", "side_by_side", "with_hidden",
]  # fmt: skip

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def as_pair(rotary: Any) -> tuple[Tensor, Tensor] | None:
    """(cos, sin) of rotary tables; of one complex table [b, q, d / 2] with every entry twice."""
    if isinstance(rotary, Tensor) and rotary.is_complex():
        return rotary.real.repeat_interleave(2, -1), rotary.imag.repeat_interleave(2, -1)
    return rotary if isinstance(rotary, tuple) else None


def bind(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a call of `module` by name."""
    if not args:
        return kwargs
    return {**dict(zip(inspect.signature(module.forward).parameters, args, strict=False)), **kwargs}


def by_name(layer: nn.Module, names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """The same call with everything behind the hidden states passed by name, so that one rule serves both ways.

    Args:
        names: those of the parameters that may be passed by position, hidden states first.

    Raises:
        UnsupportedModelError: more positional arguments than names.
    """
    if len(args) < 2:
        return args, kwargs
    if len(args) > len(names):
        raise UnsupportedModelError(
            f"{type(layer).__name__} is called with {len(args)} positional arguments, of which only "
            f"{len(names)} have names: {', '.join(names)}"
        )
    return args[:1], {**kwargs, **dict(zip(names[1:], args[1:], strict=False))}


def hidden_of(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], streams: int | None = None) -> Tensor:
    """The hidden states [b, q, d] that a decoder layer is called with; several residual streams side by side.

    Args:
        streams: the axis of the streams, if there are several.

    Raises:
        UnsupportedModelError: it has another name for them.
    """
    if not args and "hidden_states" not in kwargs:
        raise UnsupportedModelError(f"{type(layer).__name__} is called without hidden_states, but {sorted(kwargs)}")
    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden if streams is None else side_by_side(hidden, streams)


def side_by_side(rows: Tensor, streams: int) -> Tensor:
    """[b, q, s d] of rows whose axis `streams` has s of them."""
    return rows.movedim(streams, 2).flatten(2)


def apart(rows: Tensor, streams: int, count: int) -> Tensor:
    """Its inverse for `count` streams."""
    return rows.reshape(*rows.shape[:2], count, -1).movedim(2, streams)


def with_hidden(hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], streams: int | None = None) -> Arguments:
    """The same call with other hidden states, given as `hidden_of` gives them."""
    if streams is not None:
        before: Tensor = args[0] if args else kwargs["hidden_states"]
        hidden = apart(hidden, streams, before.shape[streams])
    return ((hidden,), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})


def query_places(length: int, kept: Kept | None, past: int | Tensor, hidden: Tensor) -> Tensor:
    """[b, k] place + 1 in the unpruned sequence of every row that is left of a chunk of `length`, 0 for padding."""
    if isinstance(past, Tensor):
        past = past.to(hidden.device)
    if kept is None:
        return (torch.arange(1, length + 1, device=hidden.device) + past).expand(hidden.shape[0], -1)
    place = kept.index.to(hidden.device) + 1 + past
    return place if kept.valid is None else torch.where(kept.valid.to(hidden.device), place, 0)


def cut_queries(fwd: Forward, parts: Parts, level: int, kwargs: dict[str, Any]) -> None:
    """Cut the arguments that have one entry per query down to the surviving ones."""
    assert fwd.kept is not None
    for name, value in list(kwargs.items()):
        if name in parts.adapter.padding:
            kwargs[name] = cut_padding(fwd, parts, level, value)
            continue
        if name in ("attention_mask", "hidden_states", parts.layer_cache) or value is None:
            continue
        if name == "position_embeddings" and parts.adapter.whole_tables:
            continue  # by what is stored
        elif name == "position_embeddings":
            table = value[0] if isinstance(value, tuple) else value  # accelerate rebuilds tuples, but not tensors
            kwargs[name] = fwd.once(table, ("rotary", level), functools.partial(_cut_rotary, fwd, value))
        elif name == "position_ids":
            # Only flash attention reads them here, to guess packed sequences: gaps would look like packing.
            if "flash" in parts.backend:
                kwargs[name] = None
            else:
                kwargs[name] = fwd.once(value, ("positions", level), functools.partial(_cut_positions, fwd, value))
        elif name in parts.adapter.per_token:
            kwargs[name] = gather_rows(value, fwd.kept.index)
            filling = parts.adapter.filling(parts.text_config)
            if fwd.kept.valid is not None and filling is not None:
                kwargs[name] = kwargs[name].masked_fill(~fwd.kept.valid.to(value.device), filling)
        elif name not in parts.adapter.handed_on and (shape := _follows(value, fwd.length)) is not None:
            raise UnsupportedModelError(
                f"{parts.name}: decoder layer argument {name!r} of shape {shape} has no rule for pruning"
            )


def _follows(value: Any, length: int) -> tuple[int, ...] | None:
    """The shape of a tensor in `value` that has one entry per query, None if there is none."""
    if isinstance(value, Tensor):
        return tuple(value.shape) if length in value.shape else None
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return next((shape for each in inner if (shape := _follows(each, length)) is not None), None)


def _cut_rotary(fwd: Forward, rotary: Any) -> Any:
    """(cos, sin), each [b or 1, q, head_dim] -> [b, k, head_dim], or one complex table; renumbered first where the plan
    says so."""
    assert fwd.kept is not None
    if fwd.prefill is not None and fwd.prefill.shift is not None:  # the tables were made again
        known, rotary = fwd.recall(rotary[0] if isinstance(rotary, tuple) else rotary, "repacked")
        if not known:
            raise UnsupportedModelError("positions cannot be repacked: the rotary tables are not those of rotary_emb")
    tables = rotary if isinstance(rotary, tuple) else (rotary,)
    for table in tables:
        if table.dim() != 3 or table.shape[1] != fwd.length:
            raise UnsupportedModelError(f"rotary tables of shape {tuple(table.shape)} have no rule for pruning")
    cut = tuple(gather_rows(table, fwd.kept.index) for table in tables)
    return cut if isinstance(rotary, tuple) else cut[0]


def _cut_positions(fwd: Forward, positions: Tensor) -> Tensor:
    """[..., b or 1, q] -> [..., b, k]."""
    assert fwd.kept is not None
    index = fwd.kept.index
    flat = positions.reshape(-1, *positions.shape[-2:])
    return torch.stack([gather_rows(p, index) for p in flat]).reshape(*positions.shape[:-2], *index.shape)
