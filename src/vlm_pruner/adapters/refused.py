"""Families of transformers that were looked at and have no adapter, with the reason. What their configuration alone
tells (encoder-decoder, cross-attention, layers of unknown kinds) is found by `obstacles` and does not stand here."""

from __future__ import annotations

__all__ = ["REASONS", "UNCHECKED"]

UNCHECKED = "no adapter: the layout of its visual tokens has not been checked yet"

_JOINED = (
    "outside of its layers, its decoder combines inputs of earlier layers with outputs of later ones, row by row; when "
    "rows are dropped between, these no longer fit"
)
_QUERIES = "its visual tokens are learned queries without a position in the picture, and already few"

REASONS = {
    "aria": _QUERIES,
    "blip": "its text decoder reads the picture through cross-attention",
    "blip-2": _QUERIES,
    "deepseek_ocr2": _QUERIES,
    "diffusion_gemma": "it fills in blocks of text in many passes instead of writing one token after the other",
    "evolla": "it reads proteins, not pictures",
    "git": "its pictures are a prefix without placeholders in the prompt",
    "idefics": "it reads pictures through cross-attention",
    "idefics2": _QUERIES,
    "instructblip": _QUERIES,
    "instructblipvideo": _QUERIES,
    "inkling2": _JOINED,
    "inkling2_loop": _JOINED,
    "kosmos-2": _QUERIES,
    "kosmos-2.5": _QUERIES,
    "pi0": "it controls robots and writes no text",
}
