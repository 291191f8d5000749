"""From token coordinates to pixels: which rectangle of the original image a visual token came from.

`Layout` lays tokens out on the part of the image that the model saw (see `seen`), one panel per frame, or per scale of
a tiled image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vlm_pruner.errors import InvalidSelectionError
from vlm_pruner.viz.seen import Window

__all__ = ["Layout", "Panel"]


class Panel(NamedTuple):
    """One picture to draw tokens on: a frame of a video, or one scale of a tiled image."""

    name: str
    frame: int  # which of the given images it is drawn on
    rows: int
    columns: int
    window: Window  # where its rows and columns lie on that image
    shown: bool = True  # False: where they lie is not known, and the image is left out

    @property
    def side(self) -> float:
        """The shorter side of a cell, pixels of that image."""
        return min(self.window.width / self.columns, self.window.height / self.rows)


@dataclass(frozen=True)
class Layout:
    """Where the n tokens of one image or video lie."""

    boxes: Tensor  # [n, 4] left, top, right, bottom in pixels of the original image; NaN where a token has no place
    panel: Tensor  # [n] index into `panels`, -1 where a token has no place (newline, CLS)
    cell: Tensor  # [n, 2] row, column inside the panel; -1 without a place
    panels: tuple[Panel, ...]
    window: Window

    def __len__(self) -> int:
        return self.panel.shape[0]

    @classmethod
    def of(
        cls,
        size: tuple[int, int],
        grid: tuple[int, int, int] | None = None,
        position: Tensor | None = None,
        *,
        window: Window | None = None,
        total: int | None = None,
    ) -> Layout:
        """Tokens on an image (or on every frame of a video) of `size` (width, height).

        Args:
            grid: (t, h, w) after merging; raster order unless `position` is given.
            position: [n, 3] (t, y, x) per token, -1 for a token without a place. Where the overview and the tiles of a
                picture share a plane, the overview comes first and its tokens lie at the centres of what they show.
            window: the part of the image that the plane covers, the whole of it by default (see `seen.image_window`).
            total: n, to check against the grid.

        Raises:
            InvalidSelectionError: neither grid nor position, or they do not fit together.
        """
        window = window or Window.whole(size)
        if position is None:
            if grid is None:
                raise InvalidSelectionError("a picture needs the grid (t, h, w) of the tokens or their position [n, 3]")
            parts, n = [(grid, torch.arange(grid[0] * grid[1] * grid[2]))], grid[0] * grid[1] * grid[2]
        else:
            parts, n = _scales(position.detach().float().cpu(), grid), position.shape[0]
        if total is not None and total != n:
            raise InvalidSelectionError(f"the geometry describes {n} tokens but there are {total}")
        return cls.of_parts(parts, n, window)

    @classmethod
    def of_parts(cls, parts: list[tuple[tuple[int, int, int], Tensor]], total: int, window: Window) -> Layout:
        """Each part is a (t, h, w) grid that covers the whole window, and its [t*h*w] tokens in raster order.

        A part may leave out places: -1 in its token list.
        """
        boxes = torch.full((total, 4), float("nan"))  # [n, 4]
        panel, cell = torch.full((total,), -1), torch.full((total, 2), -1)  # [n], [n, 2]
        panels: list[Panel] = []
        for number, ((frames, rows, columns), tokens) in enumerate(parts):
            place = torch.arange(frames * rows * columns)
            t, y, x = place // (rows * columns), place // columns % rows, place % columns
            there = tokens >= 0
            index = tokens[there]
            boxes[index] = _cell_boxes(y, x, rows, columns, window)[there]
            panel[index] = (len(panels) + t)[there]
            cell[index] = torch.stack([y, x], 1)[there]
            scale = ("overview", "detail")[min(number, 1)] if len(parts) > 1 else ""
            names = [f"frame {f + 1}" if frames > 1 else scale for f in range(frames)]
            panels += [Panel(name, f, rows, columns, window) for f, name in enumerate(names)]
        return cls(boxes, panel, cell, tuple(panels), window)


def _cell_boxes(y: Tensor, x: Tensor, rows: int, columns: int, window: Window) -> Tensor:
    """[m, 4] pixel rectangles of cells (y, x) of a rows x columns grid that covers the window."""
    high, wide = window.height / rows, window.width / columns
    # A right edge is computed like the next cell's left one: the very same number, so that both round to one pixel.
    edges = (window.left + x * wide, window.top + y * high, window.left + (x + 1) * wide, window.top + (y + 1) * high)
    return torch.stack(edges, 1)


def _scales(position: Tensor, grid: tuple[int, int, int] | None) -> list[tuple[tuple[int, int, int], Tensor]]:
    """Split [n, 3] positions into grids: the plane itself, and the coarser overview spread over it, if there is one.

    The plane's own tokens lie at whole numbers and come after the overview, whose cells lie wherever their centres
    fall. Whatever is neither (newlines beyond the last column, CLS) has no place.
    """
    whole = (position - position.round()).abs().amax(1) < 1e-3
    inside = (position > -0.6).all(1)  # an overview cell of a flat plane is centred just above it
    index = (whole & inside).nonzero().flatten()
    if not len(index) and (grid is None or not inside.any()):
        raise InvalidSelectionError(f"none of the {len(position)} tokens has a place in the image")
    reach = [0, 0, 0] if not len(index) else [int(v) + 1 for v in position[index].amax(0).round()]
    frames, rows, columns = grid if grid is not None else (reach[0], reach[1], reach[2])
    if reach[0] > frames or reach[1] > rows or reach[2] > columns:
        raise InvalidSelectionError(f"positions reach {tuple(reach)} but the grid is {(frames, rows, columns)}")
    t, y, x = position[index].round().long().unbind(1)
    tokens = torch.full((frames * rows * columns,), -1)
    for place, token in zip((t * rows * columns + y * columns + x).tolist(), index.tolist(), strict=True):
        tokens[place] = token  # a later token takes the place over: the plane comes after the overview
    rest = inside & (position[:, 2] < columns - 0.5 - 1e-3)
    rest[tokens[tokens >= 0]] = False
    overview = rest.nonzero().flatten()
    parts = [((frames, rows, columns), tokens)]
    side = math.isqrt(len(overview))
    if side > 1 and side * side == len(overview):
        parts.insert(0, ((1, side, side), overview))
    return parts
