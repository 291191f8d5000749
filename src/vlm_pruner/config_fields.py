"""Fields of transformers configurations, which spell the same quantity in several ways."""

from __future__ import annotations

from typing import Any

from vlm_pruner.errors import UnsupportedModelError

__all__ = ["first", "required"]


def first(config: Any, *names: str, default: Any = None) -> Any:
    """The first of the named fields that is set."""
    values = (getattr(config, name, None) for name in names)
    return next((value for value in values if value is not None), default)


def required(config: Any, *names: str) -> int:
    """The number in the first of the named fields that is set.

    Raises:
        UnsupportedModelError: there is none.
    """
    value = first(config, *names)
    if value is None or isinstance(value, list | tuple):
        raise UnsupportedModelError(f"{type(config).__name__} has no number in any of the fields {', '.join(names)}")
    return int(value)
