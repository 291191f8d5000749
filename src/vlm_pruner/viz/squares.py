"""Pictures that are sent in several squares: tiles in full resolution and an overview, each with tokens of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vlm_pruner.viz.geometry import Layout, Panel
from vlm_pruner.viz.seen import Window

__all__ = ["Placed", "picture_layout"]


class Placed(Protocol):
    """What places tokens: the engine's `ImageRecord`, or anything like it."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """(t, h, w) of the plane of the tokens."""

    @property
    def position(self) -> Tensor:
        """[n, 3] (t, y, x)."""

    @property
    def total(self) -> int:
        """n."""


@dataclass(frozen=True)
class _Square:
    tokens: Tensor  # [m] their numbers
    y: Tensor  # [m]
    x: Tensor  # [m]
    rows: int
    columns: int


def picture_layout(windows: Sequence[Window] | None, size: tuple[int, int], records: Sequence[Placed]) -> Layout:
    """Where the tokens of one image of `size` (width, height) lie: all `records` of it, in their order.

    Args:
        windows: what the model saw of the image, see `seen_windows`.

    - One plane of tokens lies on the window that the model saw, or on the whole image where it saw several views of it.
    - Squares whose windows are known lie on these: those of the whole image on the panel "overview", the others on
      "detail", or on panels of their own where they overlap.
    - Squares that cannot be placed are panels without the image.
    """
    squares = _squares(records)
    if len(squares) == 1:
        window = windows[0] if windows is not None and len(windows) == 1 else Window.whole(size)
        only = records[0]
        return Layout.of(size, only.grid, only.position, window=window, total=only.total)
    total = sum(record.total for record in records)
    if windows is None or len(windows) != len(squares):
        whole = Window.whole(size)
        panels = [(f"tile {i + 1}", [(square, whole)]) for i, square in enumerate(squares)]
        return _drawn(panels, total, whole, shown=False)
    return _drawn(_panels(squares, windows, size), total, _union(windows))


def _squares(records: Sequence[Placed]) -> list[_Square]:
    found, first = [], 0
    for record in records:
        place = record.position.detach().cpu().float()
        whole = ((place - place.round()).abs() < 1e-3).all(1)
        half = ((place[:, 2] % 1) - 0.5).abs() < 1e-3  # behind the last of whole columns: a token that closes a row
        t, y, x = place.round().long().unbind(1)
        for number in range(record.grid[0]):
            inside = (t == number) & (y >= 0) & (x >= 0)
            own = (inside & ~half if bool((inside & whole).any()) else inside).nonzero().flatten()
            rows, columns = int(y[own].max()) + 1, int(x[own].max()) + 1
            found.append(_Square(first + own, y[own], x[own], rows, columns))
        first += record.total
    return found


_Group = list[tuple[str, list[tuple[_Square, Window]]]]
"""Squares of every panel."""


def _panels(squares: Sequence[_Square], windows: Sequence[Window], size: tuple[int, int]) -> _Group:
    pairs = list(zip(squares, windows, strict=True))
    overview = [p for p in pairs if _shared(p[1], Window.whole(size)) > 0.9]
    detail = [p for p in pairs if all(p is not other for other in overview)]
    apart = all(max(_shared(a, b), _shared(b, a)) < 0.1 for i, (_, a) in enumerate(detail) for _, b in detail[:i])
    if len(overview) > 1 or not apart:
        return [(f"tile {i + 1}", [pair]) for i, pair in enumerate(pairs)]
    return [(name, group) for name, group in (("overview", overview), ("detail", detail)) if group]


def _shared(a: Window, b: Window) -> float:
    """The share of `b` that lies in `a`."""
    wide = min(a.right, b.right) - max(a.left, b.left)
    high = min(a.bottom, b.bottom) - max(a.top, b.top)
    return max(0.0, wide) * max(0.0, high) / (b.width * b.height)


def _union(windows: Sequence[Window]) -> Window:
    left, top, right, bottom = zip(*windows, strict=True)
    return Window(min(left), min(top), max(right), max(bottom))


def _drawn(groups: _Group, total: int, window: Window, shown: bool = True) -> Layout:
    boxes = torch.full((total, 4), float("nan"))  # [n, 4]
    panel, cell = torch.full((total,), -1), torch.full((total, 2), -1)  # [n], [n, 2]
    panels = []
    for number, (name, group) in enumerate(groups):
        around = _union([w for _, w in group])
        wide = sum(w.width / s.columns for s, w in group) / len(group)
        high = sum(w.height / s.rows for s, w in group) / len(group)
        for square, own in group:
            across, down = own.width / square.columns, own.height / square.rows
            left, top = own.left + square.x * across, own.top + square.y * down
            boxes[square.tokens] = torch.stack([left, top, left + across, top + down], 1).float()
            panel[square.tokens] = number
            place = torch.stack([(top - around.top) / high, (left - around.left) / wide], 1)
            cell[square.tokens] = place.round().long()
        rows, columns = max(1, round(around.height / high)), max(1, round(around.width / wide))
        panels.append(Panel(name, 0, rows, columns, around, shown))
    return Layout(boxes, panel, cell, tuple(panels), window)
