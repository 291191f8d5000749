"""Numbers of cells, where they cover nothing that was kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL import ImageDraw

from vlm_pruner.viz.geometry import Layout
from vlm_pruner.viz.palette import RGB, font

__all__ = ["Box", "beside", "free_places", "label_size", "pill"]

Box = tuple[float, float, float, float]

_SIDES = ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
"""(rows, columns) from a cell to those around it, in the order in which its number looks for a place."""


def label_size(side: float, kept: int) -> int:
    """Font size of the numbers for cells of `side` pixels, 0 where they would not be readable."""
    digits = font(100).getlength("8") / 100 * len(str(kept)) + 0.45
    size = int(min(side * 0.44, side * 0.92 / digits))
    return size if size >= 9 else 0


def free_places(
    layout: Layout, number: int, kept: Sequence[int], fits: Callable[[int, int], bool] = lambda kept, dropped: True
) -> dict[int, tuple[tuple[int, int], int]]:
    """Kept token of panel `number` -> (side, dropped token there) for its label, no two in one place.

    A token that has none but kept ones around it goes without a label.

    Args:
        fits: is a dropped token a good place for a kept one's label? Where there is none, any will do.
    """
    there = set(kept)
    own = (layout.panel == number).nonzero().flatten().tolist()
    dropped = {(int(layout.cell[t, 0]), int(layout.cell[t, 1])): t for t in own if t not in there}
    places = {}
    for token in kept:
        y, x = (int(v) for v in layout.cell[token])
        around = [s for s in _SIDES if (y + s[0], x + s[1]) in dropped]
        if around:
            side = max(around, key=lambda s: fits(token, dropped[y + s[0], x + s[1]]))
            places[token] = side, dropped.pop((y + side[0], x + side[1]))
    return places


def beside(box: Box, side: tuple[int, int], text: str, size: int) -> tuple[float, float]:
    """The corner of a label inside the cell `box`, at the edge that touches the cell it is of."""
    left, top, right, bottom = box
    wide, high = _extent(text, size)
    return (right - wide if side[1] < 0 else left), (bottom - high if side[0] < 0 else top)


def pill(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, fill: RGB, ink: RGB) -> None:
    """A small label with its top left corner at `at`."""
    wide, high = _extent(text, size)
    x, y = at
    draw.rectangle((x, y, x + wide, y + high), fill=fill)
    draw.text((x + size * 0.22, y + size * 0.5), text, font=font(size), fill=ink, anchor="lm")


def _extent(text: str, size: int) -> tuple[float, float]:
    """Width and height of a label."""
    return font(size).getlength(text) + size * 0.45, size * 1.05
