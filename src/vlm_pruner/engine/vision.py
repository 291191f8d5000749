"""Signals of the vision tower: its features, keys, and single rows of its attention."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from vlm_pruner.engine.support import Parts
from vlm_pruner.types import Signal

__all__ = ["VisionTap"]


class VisionTap:
    """Hooks on the tower for the time of one encoding."""

    def __init__(self, parts: Parts, needs: frozenset[Signal]) -> None:
        pass

    def __enter__(self) -> VisionTap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def signals(self) -> Any:
        return None
