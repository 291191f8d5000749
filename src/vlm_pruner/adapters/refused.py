"""Families of transformers that were looked at and have no adapter, with the reason. What their configuration alone
tells (encoder-decoder, cross-attention, linear layers) is found by the engine and does not stand here."""

from __future__ import annotations

__all__ = ["REASONS", "UNCHECKED"]

UNCHECKED = "no adapter: the layout of its visual tokens has not been checked yet"

_QUERIES = "its visual tokens are learned queries that stand nowhere in the picture, and already few"
_WORDS = "its pictures are words of the vocabulary: no features are encoded that could be told apart from text"
_OWN_PATH = "it adds visual features at several decoder layers by a path of its own, which would not follow the pruning"
_TIMM = "no adapter: its tower comes from another library, and its layout has not been checked"

REASONS = {
    "aria": _QUERIES,
    "blip": "its text decoder reads the picture through cross-attention",
    "blip-2": _QUERIES,
    "chameleon": _WORDS,
    "emu3": _WORDS,
    "evolla": "it reads proteins, not pictures",
    "fast_vlm": _TIMM,
    "fuyu": "it has no vision tower: pixels go through one linear layer inside the decoder's own forward",
    "git": "its pictures are a prefix without placeholders in the prompt",
    "granite4_vision": _OWN_PATH,
    "idefics": "it reads pictures through cross-attention",
    "idefics2": _QUERIES,
    "instructblip": _QUERIES,
    "instructblipvideo": _QUERIES,
    "kosmos-2": _QUERIES,
    "kosmos-2.5": _QUERIES,
    "lfm2_vl": "its decoder has convolution layers, which depend on the places that would go",
    "perception_lm": _TIMM,
    "pi0": "it moves robots: what it writes is no text",
}
