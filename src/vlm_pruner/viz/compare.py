"""Several methods (or budgets) on one image, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from vlm_pruner.types import Selection
from vlm_pruner.viz.canvas import sheet, slot_width
from vlm_pruner.viz.geometry import Layout
from vlm_pruner.viz.overlay import overlay_panels, selection_legend

__all__ = ["Choice", "side_by_side", "strip"]


class Choice(NamedTuple):
    """One entry of a comparison."""

    caption: str  # "DivPrune · 64 tokens · answers: red"
    selection: Selection


def side_by_side(
    image: Image.Image | Sequence[Image.Image],
    layout: Layout,
    choices: Sequence[Choice],
    *,
    title: str = "The same image, the same budget",
    subtitle: str = "",
    columns: int | None = None,
    width: int = 1200,
) -> Image.Image:
    """One overlay for each choice under a shared title and legend; panels of one choice share a cell of the table."""
    columns = columns or min(len(choices), 3)
    slot = slot_width(width, columns)
    pictures = [strip(overlay_panels(image, layout, c.selection, width=slot, numbers=False)) for c in choices]
    kept = max(len(c.selection) for c in choices)
    ordered = next((c.selection for c in choices if c.selection.order is not None), choices[0].selection)
    return sheet(
        pictures,
        title=title,
        subtitle=subtitle,
        captions=[c.caption for c in choices],
        legend=selection_legend(image, layout, ordered, kept),
        columns=columns,
        width=width,
    )


def strip(panels: Sequence[Image.Image]) -> Image.Image:
    """Panels of equal width set side by side."""
    if len(panels) == 1:
        return panels[0]
    width, gap = panels[0].width, 6
    row = Image.new("RGB", ((width + gap) * len(panels) - gap, max(p.height for p in panels)), (255, 255, 255))
    for i, panel in enumerate(panels):
        row.paste(panel, (i * (width + gap), 0))
    return row
