"""The selection as it grew: an animated GIF that lights the tokens up in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vlm_pruner.errors import InvalidSelectionError
from vlm_pruner.types import Selection
from vlm_pruner.viz.canvas import sheet, slot_width
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
        panels = overlay_panels(image, layout, so_far, width=slot_width(width, columns), numbers=False, scale_to=kept)
        page = sheet(panels, title=title, subtitle=f"{count} of {kept} chosen", columns=columns, width=width)
        done = round((width - 16) * count / kept)
        ImageDraw.Draw(page).rectangle((8, page.height - 7, 8 + done, page.height - 4), fill=ACCENT)
        pages.append(page)
    return pages


def save_growth(
    path: str | Path, frames: Sequence[Image.Image], *, milliseconds: int = 140, colours: int = 128
) -> None:
    """Write the frames as one looping GIF with a shared palette, the last one shown for two seconds."""
    palette = _palette(frames[-1], colours)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [milliseconds] * (len(frames) - 1) + [2000]
    indexed[0].save(path, save_all=True, append_images=indexed[1:], duration=times, loop=0, optimize=True, disposal=1)


def _palette(frame: Image.Image, colours: int) -> Image.Image:
    """An image with a palette for `frame`: the few coloured pixels get as many entries as the many grey ones."""
    pixels = np.asarray(frame.convert("RGB")).reshape(-1, 3)  # [n, 3]
    vivid = np.ptp(pixels, 1) > 24
    entries: list[int] = []
    for part in (pixels[vivid], pixels[~vivid]):
        if len(part):
            entries += Image.fromarray(part[None]).quantize(min(colours, 256) // 2).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette(entries)
    return palette
