"""How much of a picture is writing, told from its pixels alone."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["DENSE", "stroke_density"]

DENSE = 0.1
"""From this `stroke_density` on a picture counts as text-dense: photographs stay below 0.03, a page of twelve lines has
0.15 and more."""

_LONGEST = 1024  # pixels; larger pictures are looked at in this size
_BLOCK = 16
_STEP = 60  # of 255, between neighbours: the edge of a stroke


def stroke_density(image: Image.Image) -> float:
    """Share of the 16 x 16 blocks in which a row of pixels crosses the edge of a stroke twice, on average."""
    grey = image.convert("L")
    scale = _LONGEST / max(grey.size)
    if scale < 1:
        grey = grey.resize((max(1, round(grey.width * scale)), max(1, round(grey.height * scale))))
    edges = np.abs(np.diff(np.asarray(grey, dtype=np.int16), axis=1)) > _STEP  # [h, w - 1]
    rows, columns = edges.shape[0] // _BLOCK, edges.shape[1] // _BLOCK
    if not rows or not columns:
        return 0.0
    blocks = edges[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK)
    return float((blocks.sum((1, 3)) >= 2 * _BLOCK).mean())
