"""Where the signals come from that methods ask for."""

from __future__ import annotations

from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.types import Signal

__all__ = ["ATTENTION", "ENTERED", "FROM_LAYER_BEFORE", "VISION", "reads"]

ATTENTION = frozenset({Signal.LAST_QUERY_ATTENTION, Signal.TEXT_ATTENTION})
FROM_LAYER_BEFORE = ATTENTION | {Signal.KEYS, Signal.TEXT_KEYS, Signal.PREVIOUS_FEATURES}
ENTERED = frozenset({Signal.WORDS, Signal.EMBEDDINGS})  # rows that enter the language model
VISION = frozenset({Signal.VISION_FEATURES, Signal.VISION_KEYS, Signal.CLS_ATTENTION, Signal.VISION_ATTENTION})


def reads(method: PruningMethod) -> frozenset[Signal]:
    """Everything that `method` reads where it is there."""
    return method.needs | method.wants
