"""What the oldest supported transformers cannot do, pruned or not: such a test is skipped there, with the reason."""

from __future__ import annotations

from importlib.metadata import version

import pytest

__all__ = ["OLD", "newer_only"]

OLD = tuple(int(part) for part in version("transformers").split(".")[:2]) < (5, 23)


def newer_only(reason: str) -> pytest.MarkDecorator:
    """Skip on transformers before 5.23."""
    return pytest.mark.skipif(OLD, reason=f"transformers before 5.23: {reason}")
