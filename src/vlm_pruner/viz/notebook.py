"""How a session and a selection show themselves in a notebook: small HTML with vector maps, no image needed."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Protocol

from torch import Tensor

from vlm_pruner.types import Selection
from vlm_pruner.viz.film import kept_per_frame
from vlm_pruner.viz.geometry import Layout
from vlm_pruner.viz.palette import order_colour
from vlm_pruner.viz.squares import picture_layout

__all__ = ["Pruned", "selection_html", "session_html"]

CELL = 9  # pixels


class Pruned(Protocol):
    """What is drawn of one image: the engine's `ImageRecord`, or anything like it."""

    @property
    def modality(self) -> str:
        """ "image" or "video"."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """(t, h, w) of the plane of the tokens."""

    @property
    def position(self) -> Tensor:
        """[n, 3] (t, y, x)."""

    @property
    def total(self) -> int:
        """n."""

    @property
    def kept(self) -> int:
        """Tokens that are left."""

    @property
    def note(self) -> str:
        """Why it was left alone."""

    @property
    def selection(self) -> Selection | None:
        """The last choice, None if everything was kept."""


def session_html(summary: str, images: Sequence[Pruned]) -> str:
    """The one-line report, and for every image a map of its tokens: kept ones in the colour of their rank."""
    maps = "".join(_figure(number, image) for number, image in enumerate(images))
    return f'<div style="font: 14px system-ui, sans-serif"><p>{escape(summary)}</p>{maps}</div>'


def selection_html(selection: Selection) -> str:
    """Counts, and a strip with one mark for every kept token at its index, coloured by rank."""
    kept = len(selection)
    # Only a merging method says how many tokens there were; else the strip ends at the last one kept.
    end = int(selection.index[-1]) + 1 if selection.source is None else selection.source.shape[0]
    total = "" if selection.source is None else f" of {end}"
    merged = "" if selection.source is None else f", {int((selection.source >= 0).sum()) - kept} merged into them"
    marks = "".join(
        f'<rect x="{600 * token / end:.1f}" width="{max(1.0, 600 / end):.1f}" height="18" fill="{colour}"/>'
        for token, colour in _coloured(selection)
    )
    strip = f'<svg viewBox="0 0 600 18" width="600" style="max-width: 100%; background: #4a4f57">{marks}</svg>'
    return f'<div style="font: 14px system-ui, sans-serif"><p>{kept}{total} tokens kept{merged}</p>{strip}</div>'


def _figure(number: int, image: Pruned) -> str:
    caption = f"image {number}: {image.kept} of {image.total} tokens" + (f", {image.note}" if image.note else "")
    if image.selection is None:
        return f"<p>{escape(caption)}</p>"
    rows, columns = image.grid[1:]
    size = columns * CELL, rows * CELL
    if image.modality == "video":
        layout = Layout.of(size, image.grid, image.position)
    else:
        layout = picture_layout(None, size, [image])  # where its tiles lie on the picture is not known here
    coloured = _coloured(image.selection)
    maps = []
    for which, panel in enumerate(layout.panels):
        cells = "".join(
            _rectangle(layout.boxes[token].tolist(), colour)
            for token, colour in coloured
            if int(layout.panel[token]) == which
        )
        maps.append(
            f'<svg viewBox="0 0 {columns * CELL} {rows * CELL}" width="{columns * CELL}" role="img" '
            f'aria-label="kept tokens {panel.name}" style="background: #4a4f57; margin-right: 8px">{cells}</svg>'
        )
    if image.modality == "video":
        maps.append(_bars(kept_per_frame(layout, image.selection)))
    return f'<figure style="margin: 8px 0">{"".join(maps)}<figcaption>{escape(caption)}</figcaption></figure>'


def _bars(counts: Sequence[int]) -> str:
    """A bar for every frame, as high as its share of the largest count."""
    heights = [40 * count / max(1, *counts) for count in counts]
    mark = "display: inline-block; width: 12px; margin-right: 2px; background: #0072b2"
    bars = "".join(f'<i style="{mark}; height: {height:.1f}px"></i>' for height in heights)
    said = f"tokens kept per frame: {', '.join(map(str, counts))}"
    return f'<div role="img" aria-label="{said}" style="margin-top: 4px">{bars}</div>'


def _coloured(selection: Selection) -> list[tuple[int, str]]:
    """(token, CSS colour) of every kept token; one colour for all where there is no order."""
    if selection.order is None:
        return [(token, "#f0e442") for token in selection.index.tolist()]
    order = selection.order.tolist()
    return [(token, "#{:02x}{:02x}{:02x}".format(*order_colour(i, len(order)))) for i, token in enumerate(order)]


def _rectangle(box: list[float], colour: str) -> str:
    left, top, right, bottom = box
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" fill="{colour}"/>'
    )
