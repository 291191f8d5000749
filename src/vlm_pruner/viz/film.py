"""What stays of a video: a strip of its frames over bars of how many tokens each keeps, and the same in motion."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from vlm_pruner.types import Selection
from vlm_pruner.viz.canvas import sheet, slot_width
from vlm_pruner.viz.geometry import Layout, Panel
from vlm_pruner.viz.overlay import overlay_panels, scaled, selection_legend
from vlm_pruner.viz.palette import ACCENT, INK, MUTED, PAPER, RGB, font

__all__ = ["bars", "contact", "film", "film_layout", "film_pages", "film_uri", "kept_per_frame", "save_film"]

PALE: RGB = (188, 196, 205)
COLUMNS = 8  # of a strip, at most
ANIMATED = (".gif", ".webp")
"""Endings of the files that `save_film` writes."""


def film_layout(parts: Sequence[Layout], frames: int, times: Sequence[float]) -> Layout:
    """The tokens of a video of so many frames, from the layouts of its pieces in their order.

    A piece is a whole video, one position of it in time, or one frame. Positions in time that show several frames
    (pairs of them, in some families) are drawn on the first of these. Panels are named by the time at which they begin.

    Args:
        times: [frames] seconds.
    """
    boxes, panel, cell = [], [], []
    panels: list[Panel] = []
    moments = sum(len({one.frame for one in part.panels}) for part in parts)
    each = -(-frames // moments)
    begun = 0
    for part in parts:
        panel.append(torch.where(part.panel >= 0, part.panel + len(panels), -1))
        boxes.append(part.boxes)
        cell.append(part.cell)
        for one in part.panels:
            frame = min((begun + one.frame) * each, frames - 1)
            name = f"{times[frame]:.1f} s" + (f", {one.name}" if one.name and not one.name.startswith("frame") else "")
            panels.append(one._replace(frame=frame, name=name))
        begun += len({one.frame for one in part.panels})
    return Layout(torch.cat(boxes), torch.cat(panel), torch.cat(cell), tuple(panels), parts[0].window)


def kept_per_frame(layout: Layout, selection: Selection) -> list[int]:
    """Tokens that stay on every panel; those without a place (newlines) count nowhere."""
    panel = layout.panel[selection.index.cpu()]
    return [int((panel == number).sum()) for number in range(len(layout.panels))]


def film(
    frames: Sequence[Image.Image],
    layout: Layout,
    selection: Selection,
    *,
    title: str = "Which visual tokens stay",
    subtitle: str = "",
    width: int = 960,
) -> Image.Image:
    """The strip: every frame with its kept tokens bright, in the colours of their order, its time and its count; bars.

    Args:
        layout: of `film_layout`.
        width: of the whole picture in pixels.

    Raises:
        InvalidSelectionError: the selection points past the tokens of the layout.
    """
    columns = min(len(layout.panels), COLUMNS if len(layout.panels) > 12 else 4)
    counts = kept_per_frame(layout, selection)
    panels = overlay_panels(frames, layout, selection, width=slot_width(width, columns), numbers=False)
    captions = [f"{panel.name}: {count}" for panel, count in zip(layout.panels, counts, strict=True)]
    strip = sheet(panels, title=title, subtitle=subtitle, captions=captions, columns=columns, width=width)
    return _under(strip, _foot(frames, layout, selection, counts, width))


def bars(counts: Sequence[int], width: int, *, marked: int | None = None) -> Image.Image:
    """One bar for every frame, as high as its share of the largest count, over its number; `marked` stands out."""
    size = max(11, width // 60)
    high = max(48, width // 12)
    page = Image.new("RGB", (width, high + round(2.6 * size)), PAPER)
    draw, face, most = ImageDraw.Draw(page), font(size), max(1, *counts)
    draw.text((0, 0), f"tokens kept per frame, at most {most}", font=face, fill=MUTED)
    top, step = round(1.4 * size), width / len(counts)
    for number, count in enumerate(counts):
        left, right = round(number * step), max(round(number * step) + 1, round((number + 1) * step) - 2)
        colour = ACCENT if marked in (None, number) else PALE
        draw.rectangle((left, top + high - round(high * count / most), right, top + high), fill=colour)
    for number in sorted({0, len(counts) - 1}):
        at = (round(number * step + step / 2), top + high + 2)
        draw.text(at, str(number + 1), font=face, fill=INK, anchor="ma")
    return page


def film_pages(
    frames: Sequence[Image.Image], layout: Layout, selection: Selection, *, title: str = "", width: int = 480
) -> list[Image.Image]:
    """One page for every panel: the frame with its kept tokens, and the bars with its own marked.

    Raises:
        InvalidSelectionError: the selection points past the tokens of the layout.
    """
    counts = kept_per_frame(layout, selection)
    slot = slot_width(width)
    panels = overlay_panels(frames, layout, selection, width=slot, numbers=False)
    pages = []
    for number, panel in enumerate(panels):
        note = f"{layout.panels[number].name}: {counts[number]} tokens kept"
        page = sheet([panel], title=title, captions=[note], width=width)
        pages.append(_under(page, sheet([bars(counts, slot, marked=number)], title="", width=width)))
    return pages


def save_film(path: str | Path, pages: Sequence[Image.Image], *, milliseconds: int = 400) -> None:
    """Write the pages as a looping GIF or WebP, by the ending of `path`."""
    webp = Path(path).suffix.lower() == ".webp"
    shown = list(pages) if webp else [page.quantize(256, dither=Image.Dither.NONE) for page in pages]
    options: dict[str, Any] = {"quality": 80} if webp else {"optimize": True, "disposal": 1}
    shown[0].save(path, save_all=True, append_images=shown[1:], duration=milliseconds, loop=0, **options)


def film_uri(pages: Sequence[Image.Image], *, milliseconds: int = 400) -> str:
    """The pages as an animated WebP inside an HTML page."""
    buffer = io.BytesIO()
    rest = list(pages[1:])
    pages[0].save(buffer, "WEBP", save_all=True, append_images=rest, duration=milliseconds, loop=0, quality=60)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def contact(frames: Sequence[Image.Image], times: Sequence[float], *, most: int = 8, width: int = 640) -> Image.Image:
    """Some of the frames at equal distances, each over its time."""
    count = min(most, len(frames))
    taken = [number * len(frames) // count for number in range(count)]
    columns = min(count, 4)
    panels = [scaled(frames[number], slot_width(width, columns))[0] for number in taken]
    captions = [f"{times[number]:.1f} s" for number in taken]
    return sheet(panels, title="", captions=captions, columns=columns, width=width)


def _foot(
    frames: Sequence[Image.Image], layout: Layout, selection: Selection, counts: Sequence[int], width: int
) -> Image.Image:
    legend = selection_legend(frames, layout, selection)
    return sheet([bars(counts, slot_width(width))], title="", legend=legend, width=width)


def _under(page: Image.Image, other: Image.Image) -> Image.Image:
    """Two sheets of one width as one."""
    both = Image.new("RGB", (page.width, page.height + other.height), PAPER)
    both.paste(page, (0, 0))
    both.paste(other, (0, page.height))
    return both
