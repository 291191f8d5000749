"""The selection as it grew: an animated GIF that lights the tokens up in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw

from vlm_pruner.errors import InvalidSelectionError
from vlm_pruner.types import Selection
from vlm_pruner.viz.canvas import sheet
from vlm_pruner.viz.geometry import Layout
from vlm_pruner.viz.overlay import overlay_panels
from vlm_pruner.viz.palette import ACCENT

__all__ = ["growth_frames", "save_growth"]


def growth_frames(
    image: Image.Image | Sequence[Image.Image],
    layout: Layout,
    selection: Selection,
    *,
    title: str = "How the selection grows",
    steps: int = 24,
    width: int = 480,
) -> list[Image.Image]:
    """The overlay after the first few tokens, after some more, ... after all of them: at most `steps` pictures.

    Raises:
        InvalidSelectionError: the selection has no order.
    """
    if selection.order is None:
        raise InvalidSelectionError("this selection has no `order`: its method takes all tokens at once")
    kept = len(selection)
    counts = sorted({max(1, round(kept * (i + 1) / steps)) for i in range(steps)} | {kept})
    columns = min(len(layout.panels), 2)
    pages = []
    for count in counts:
        so_far = replace(selection, index=selection.order[:count].sort().values, order=selection.order[:count])
        panels = overlay_panels(image, layout, so_far, width=width // columns, numbers=False, scale_to=kept)
        page = sheet(panels, title=title, subtitle=f"{count} of {kept} chosen", columns=columns, width=width)
        done = round((width - 16) * count / kept)
        ImageDraw.Draw(page).rectangle((8, page.height - 7, 8 + done, page.height - 4), fill=ACCENT)
        pages.append(page)
    return pages


def save_growth(path: str | Path, frames: Sequence[Image.Image], *, milliseconds: int = 140, colours: int = 96) -> None:
    """Write the frames as one looping GIF with a shared palette, the last one shown for two seconds."""
    last = frames[-1].quantize(colours, dither=Image.Dither.NONE)
    indexed = [frame.quantize(palette=last, dither=Image.Dither.NONE) for frame in frames]
    times = [milliseconds] * (len(frames) - 1) + [2000]
    indexed[0].save(path, save_all=True, append_images=indexed[1:], duration=times, loop=0, optimize=True, disposal=1)
