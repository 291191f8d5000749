"""From encoded pictures and the placeholders of a batch to where the tokens of every picture stand."""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch
from torch import Tensor

from vlm_pruner.adapters.base import Layout, Modality, VisualSpan, raster
from vlm_pruner.errors import UnsupportedModelError

__all__ = ["deal_out", "split_frames"]


def deal_out(layouts: list[Layout], places: Tensor, modality: Modality, joins: bool = False) -> list[VisualSpan]:
    """Give the encoded pictures to the rows of the batch, in reading order.

    Beam search and `num_return_sequences` encode once and then repeat every row e times, so that the rows may hold e
    times what was encoded.

    Args:
        places: [b, q] bool on the host, True at the placeholders of this modality.
        joins: an unbroken run of placeholders is one picture, whatever number of layouts it takes.

    Raises:
        UnsupportedModelError: the placeholders are not the tokens of these pictures.
    """
    counts = places.sum(1).tolist()
    have, need = sum(x.tokens for x in layouts), sum(counts)
    copies = need // have if have else 0
    if not copies or need % have or len(counts) % copies:
        raise UnsupportedModelError(
            f"{need} {modality} placeholders in the prompt, but the encoded {modality}s have {have} tokens"
        )
    spans: list[VisualSpan] = []
    source = tile = 0
    for first in range(0, len(counts), copies):
        group = range(first, first + copies)
        slots = [places[row].nonzero().flatten() for row in group]
        used = index = 0
        while used < counts[first]:
            parts = _run(layouts[source:], slots[0][used:]) if joins else 1
            layout = _stack(layouts[source : source + parts])
            end = used + layout.tokens
            if end > counts[first]:
                raise UnsupportedModelError(
                    f"the {layout.tokens} tokens of one {modality} are split over rows or chunks: pass the prompt whole"
                )
            for row, own in zip(group, slots, strict=True):
                spans.append(VisualSpan(row, index, modality, own[used:end], layout, tile, copies))
            used, index, source, tile = end, index + 1, source + parts, tile + layout.tiles
    return spans


def _run(layouts: list[Layout], slots: Tensor) -> int:
    """How many of the layouts lie in the unbroken run of places at the start of `slots`, at least 1."""
    breaks = (slots[1:] != slots[:-1] + 1).nonzero()
    length = int(breaks[0]) + 1 if len(breaks) else len(slots)
    ends = list(itertools.accumulate(layout.tokens for layout in layouts))
    return max(1, sum(end <= length for end in ends))


def _stack(tiles: list[Layout]) -> Layout:
    """Rasters of equal size as the squares of one picture, or as its rows.

    Raises:
        UnsupportedModelError: rows of different length.
    """
    _, h, w = tiles[0].grid
    if tiles[0].row:
        if any(row.tokens != w for row in tiles):
            raise UnsupportedModelError(
                "image rows of different length follow each other in the prompt: put words between two pictures"
            )
        return raster(1, len(tiles), w)
    return tiles[0] if len(tiles) == 1 else replace(raster(len(tiles), h, w), tiles=len(tiles))


def split_frames(span: VisualSpan) -> list[VisualSpan]:
    """The frames of a video, each a picture of its own at its time. What ends the video goes with its last frame."""
    layout = span.layout
    t, h, w = layout.grid
    place = layout.places()
    frames = []
    for i in range(t):
        own = (place[:, 0] == i).nonzero().flatten()
        frame = Layout(len(own), (1, h, w), place[own] * torch.tensor([0.0, 1.0, 1.0]))
        frames.append(replace(span, slots=span.slots[own], layout=frame, index=span.index * t + i, tile=span.tile + i))
    return frames
