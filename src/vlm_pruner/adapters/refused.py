"""Families of transformers that were looked at and have no adapter, with the reason. What their configuration alone
tells (encoder-decoder, cross-attention, linear layers) is found by the engine and does not stand here."""

from __future__ import annotations

__all__ = ["REASONS", "UNCHECKED"]

UNCHECKED = "no adapter: the layout of its visual tokens has not been checked yet"

_QUERIES = "its visual tokens are learned queries that stand nowhere in the picture, and already few"

REASONS = {
    "aria": _QUERIES,
    "blip": "its text decoder reads the picture through cross-attention",
    "blip-2": _QUERIES,
    "deepseek_ocr2": _QUERIES,
    "diffusion_gemma": "it fills in blocks of text in many passes instead of writing one token behind the other",
    "evolla": "it reads proteins, not pictures",
    "glm5_next": "its indexer pools neighbouring keys, and takes the length that the cache tells for what it stores",
    "git": "its pictures are a prefix without placeholders in the prompt",
    "idefics": "it reads pictures through cross-attention",
    "idefics2": _QUERIES,
    "instructblip": _QUERIES,
    "instructblipvideo": _QUERIES,
    "kosmos-2": _QUERIES,
    "kosmos-2.5": _QUERIES,
    "minimax_m3_vl": "its sparse decoder layers choose blocks of keys by their places, which would go",
    "qwen4_exp": "its indexer turns pooled keys by tables over all places, at the places that they have in the cache",
    "pi0": "it moves robots: what it writes is no text",
}
