"""Where the signals come from that methods ask for."""

from __future__ import annotations

from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.types import Signal

__all__ = ["ENTERED", "FROM_LAYER_BEFORE", "PROJECTED", "VISION", "reads"]

PROJECTED = frozenset({Signal.RAW_KEYS, Signal.TEXT_QUERIES})  # before they are normed and turned
FROM_LAYER_BEFORE = PROJECTED | {
    Signal.KEYS, Signal.TEXT_KEYS, Signal.VALUES, Signal.TEXT_VALUES, Signal.ROTARY, Signal.PREVIOUS_FEATURES,
    Signal.LAST_QUERY_ATTENTION, Signal.TEXT_ATTENTION,
}  # fmt: skip
ENTERED = frozenset({Signal.WORDS, Signal.EMBEDDINGS})  # rows that enter the language model
VISION = frozenset({
    Signal.VISION_FEATURES, Signal.VISION_KEYS, Signal.CLS_ATTENTION, Signal.CLS_ATTENTIONS, Signal.VISION_ATTENTION
})  # fmt: skip


def reads(method: PruningMethod) -> frozenset[Signal]:
    """Everything that `method` reads where it is there."""
    return method.needs | method.wants
