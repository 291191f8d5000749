"""What differs between the releases of transformers: names, and what the oldest cannot do, pruned or not."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest

__all__ = ["CACHE", "OLD", "RELEASE", "cache_in", "newer_only"]

RELEASE = tuple(int(part) for part in version("transformers").split(".")[:2])
OLD = RELEASE < (5, 23)
CACHE = "cache" if RELEASE >= (5, 24) else "past_key_values"  # what models, layers and outputs call the cache


def cache_in(output: Any) -> Any:
    """The cache that a model returned."""
    return getattr(output, CACHE)


def newer_only(reason: str) -> pytest.MarkDecorator:
    """Skip on transformers before 5.23."""
    return pytest.mark.skipif(OLD, reason=f"transformers before 5.23: {reason}")
