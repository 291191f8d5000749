"""Pooling: every kept token is the mean of a rectangle of the token grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch

from vlm_pruner.methods._merge import merged
from vlm_pruner.methods._signals import raster
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops import constant
from vlm_pruner.ops.basic import pool
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["Pooling", "rectangles"]


def rectangles(rows: int, columns: int, keep: int) -> list[tuple[range, range]]:
    """A grid cut into exactly `keep` rectangles (rows, columns) of nearly one size and shape, in raster order.

    The grid is cut into bands of rows, and each band into its share of `keep`; 64 of 24 x 24 gives blocks of 3 x 3.
    """
    bands = round((keep * rows / columns) ** 0.5)
    bands = max(-(-keep // columns), min(bands, rows, keep), 1)
    result = []
    for band in range(bands):
        inside = range(band * rows // bands, (band + 1) * rows // bands)
        count = (band + 1) * keep // bands - band * keep // bands
        result += [(inside, range(c * columns // count, (c + 1) * columns // count)) for c in range(count)]
    return result


@final
@dataclass(frozen=True)
class Pooling(PruningMethod):
    """Averages rectangles of the token grid; each mean stands at the middle of its rectangle.

    Source: baseline.
    Deviates: budgets that are no smaller grid get rectangles of nearly equal size. The frames of a video are pooled as
    one tall image, tokens without a full grid as one row.
    Cost: O(n d keep).
    """

    name: ClassVar[str] = "pooling"
    title: ClassVar[str] = "Average pooling"
    source: ClassVar[str] = "baseline"

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        t, h, w = raster(tokens)
        middles, slot = [], [0] * len(tokens)
        for number, (rows, columns) in enumerate(rectangles(t * h, w, keep)):
            middles.append(rows[len(rows) // 2] * w + columns[len(columns) // 2])
            for y in rows:
                slot[y * w + columns.start : y * w + columns.stop] = [number] * len(columns)
        order, place = (constant(tuple(x), torch.int64, tokens.device).clone() for x in (middles, slot))
        size = pool(torch.ones_like(tokens.features[:, :1]), place, keep)
        return merged(order, pool(tokens.features, place, keep) / size, place, tokens.features.dtype)
