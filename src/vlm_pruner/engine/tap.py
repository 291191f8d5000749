"""A tap on the attention of one decoder layer, which sees the queries, keys, values, mask and scale that it uses.

Attention modules of transformers look their attention function up by a name in their configuration. A tapped module
gets a copy of its configuration with a name of its own, under which a function is found that looks at its arguments and
calls the one that the model's configuration names. So nothing has to be known of how a family norms, turns or scales
its queries, and what a method reads is there under every attention backend.
"""

from __future__ import annotations

import copy
import dis
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vlm_pruner.engine.release import unseen

__all__ = ["Attended", "around", "can_be_tapped", "tap"]

_REGISTRY = "ALL_ATTENTION_FUNCTIONS"  # the name by which modules of transformers know the attention functions
_EAGER = "eager_attention_forward"  # how the function of a module's own file is called that is used for "eager"


@dataclass(frozen=True)
class Attended:
    """What one call of an attention function was given."""

    query: Tensor  # [b, heads, q, head_dim]
    key: Tensor  # [b, kv_heads, k, head_dim], those of the cache included
    value: Tensor  # [b, kv_heads, k, value_dim]
    mask: Any
    scale: float
    softcap: float | None
    sinks: Tensor | None  # [heads] logits of a place that is no token
    causal: bool
    bias: Tensor | None = None  # [b, heads, q, k] on the logits


def _eager(forward: Any) -> Any:
    """The function of a module's own file for eager attention, None where it has none."""
    known = (n for n in forward.__code__.co_names if n.endswith(_EAGER) and n in forward.__globals__)
    return forward.__globals__.get(next(known, _EAGER))


def _asks(kind: type) -> int:
    """How often a module asks its configuration for the name of the attention function, in whatever method."""
    methods = [inspect.unwrap(one) for one in vars(kind).values() if inspect.isfunction(one)]
    return sum(step.argval == "_attn_implementation" for one in methods for step in dis.get_instructions(one))


def can_be_tapped(attention: Any) -> bool:
    """Does an attention module look its attention function up, and ask for the name for nothing else?"""
    forward = inspect.unwrap(type(attention).forward)
    found = getattr(attention, "config", None), forward.__globals__.get(_REGISTRY), _eager(forward)
    return all(part is not None for part in found) and _asks(type(attention)) <= 1


def tap(attention: Any, look: Callable[[Attended], None]) -> Callable[[], None] | None:
    """Have `look` called with what `attention` attends to, just before it does. Returns and raises as `around`."""

    def attend(
        call: Any, backend: str, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, *args: Any,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        given = {name: value for name, value in kwargs.items() if value is not None}
        look(
            Attended(
                query, key, value, mask,
                scale=given.get("scaling", query.shape[-1] ** -0.5),
                softcap=given.get("softcap"),
                sinks=given.get("s_aux"),
                causal=given.get("is_causal", getattr(module, "is_causal", True)),
                bias=given.get("position_bias"),
            )
        )  # fmt: skip
        return call(module, query, key, value, mask, *args, **kwargs)

    return around(attention, attend)


def around(attention: Any, attend: Callable[..., Any]) -> Callable[[], None] | None:
    """Have `attend` called in place of the attention function of `attention`: with that function, the name of the
    backend, and the function's arguments.

    Returns:
        A function that takes the tap off, or None where the module does not look its attention function up, so that
        nothing can be seen.

    Raises:
        UnsupportedModelError: this release keeps the name of the attention function elsewhere.
    """
    if not can_be_tapped(attention):
        return None
    forward, config = inspect.unwrap(type(attention).forward), attention.config
    registry, eager = forward.__globals__[_REGISTRY], _eager(forward)
    name = f"{config._attn_implementation}+vlm_pruner.{id(attention)}"
    own = copy.copy(config)
    own._attn_implementation_internal = name  # the property would write it into parts that the copy shares
    if own._attn_implementation != name:
        raise unseen(f"the attention function of {type(attention).__name__} is not found by its configuration")
    untapped = copy.copy(attention)
    untapped.config = config

    @functools.wraps(eager)
    def tapped(module: Any, *args: Any, **kwargs: Any) -> Any:
        backend = config._attn_implementation
        if "flash" in backend:  # whose functions ask the module's configuration for the backend once more
            module = untapped
        return attend(registry.get_interface(backend, eager), backend, module, *args, **kwargs)

    registry[name] = tapped
    attention.config = own

    def remove() -> None:
        attention.config = config
        del registry[name]

    return remove
