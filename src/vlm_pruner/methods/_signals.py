"""Signals that several methods read alike, with the substitute for towers that lack the first choice."""

from __future__ import annotations

from operator import attrgetter

from torch import Tensor

from vlm_pruner.errors import MissingSignalError
from vlm_pruner.methods.base import PruningMethod, require
from vlm_pruner.ops.basic import mean
from vlm_pruner.types import Signal, VisualTokens

__all__ = ["SALIENCE", "question", "raster", "read", "salience", "site_rows"]

SALIENCE = frozenset({Signal.CLS_ATTENTION, Signal.VISION_ATTENTION})
"""What `salience` reads: the first that the tower has."""


def read(method: PruningMethod, tokens: VisualTokens, *signals: Signal) -> tuple[Tensor, ...]:
    """The tensors of `signals`, in that order.

    Raises:
        MissingSignalError: one of them is missing.
    """
    require(method, tokens, *signals)
    return tuple(attrgetter(signal.value)(tokens) for signal in signals)


def salience(method: PruningMethod, tokens: VisualTokens) -> Tensor:
    """[n] float32: attention of the CLS row, mean over heads; in a tower without CLS the mean attention received.

    Raises:
        MissingSignalError: the tower gives neither.
    """
    vision = tokens.vision
    if vision is not None and vision.cls_attention is not None:
        return mean(vision.cls_attention, 0)
    if vision is not None and vision.attention is not None:
        return vision.attention[-1].float()
    raise MissingSignalError(
        f"{method.name} needs CLS_ATTENTION (vision.cls_attention) or, from a tower without CLS, VISION_ATTENTION "
        "(vision.attention); neither is available"
    )


def site_rows(method: PruningMethod, tokens: VisualTokens) -> Tensor:
    """[n, c] patch rows of the vision tower before the language model, [n, d] the residual stream inside it.

    Raises:
        MissingSignalError: before the language model, and the tower's rows are not available.
    """
    if tokens.layer not in (None, 0):
        return tokens.features
    return read(method, tokens, Signal.VISION_FEATURES)[0]


def raster(tokens: VisualTokens) -> tuple[int, int, int]:
    """(t, h, w) of tokens in raster order; one row where the grid does not hold exactly these tokens."""
    n = len(tokens)
    if tokens.grid is not None and tokens.grid[0] * tokens.grid[1] * tokens.grid[2] == n:
        return tokens.grid
    return 1, 1, n


def question(method: PruningMethod, tokens: VisualTokens) -> tuple[Tensor, Tensor]:
    """Image rows [n, c] and question rows [m, c] of one space: CLIP's, else the mean word embedding and the tokens.

    Raises:
        MissingSignalError: neither a shared space nor the words are available.
    """
    if tokens.image_embeds is not None and tokens.text_embeds is not None:
        return tokens.image_embeds, tokens.text_embeds
    if tokens.words is not None and len(tokens.words):
        rows = tokens.features if tokens.embeddings is None else tokens.embeddings
        return rows, tokens.words.float().mean(0, keepdim=True)
    raise MissingSignalError(
        f"{method.name} needs SHARED_SPACE (image_embeds, text_embeds) or, as a substitute, WORDS; neither is available"
    )
