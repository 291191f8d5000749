"""The sheet that pictures are put on: title, panels side by side, legend, all in one measured layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from vlm_pruner.viz.palette import INK, MUTED, PAPER, RGB, font, order_colour
from vlm_pruner.viz.text import wrap, write

__all__ = ["Legend", "order_legend", "sheet", "slot_width", "swatch"]

Legend = Callable[[ImageDraw.ImageDraw, int, int, int], None]
"""Draws itself at (left, top) with the given width; `sheet` leaves `LEGEND_HEIGHT` for it."""

LEGEND_HEIGHT = 3.1  # in text sizes


@dataclass(frozen=True)
class _Type:
    """Text sizes in pixels for a sheet of a given width: 15 px at 600 px wide."""

    title: int
    text: int
    margin: int

    @classmethod
    def of(cls, width: int) -> _Type:
        return cls(title=max(14, width // 30), text=max(11, width // 42), margin=max(8, width // 48))


def slot_width(width: int, columns: int = 1) -> int:
    """Pixels that `sheet` has for a panel; one drawn at another width is scaled to it."""
    margin = _Type.of(width).margin
    return (width - (columns + 1) * margin) // columns


def sheet(
    panels: Sequence[Image.Image],
    *,
    title: str,
    subtitle: str = "",
    captions: Sequence[str] = (),
    legend: Legend | None = None,
    columns: int = 1,
    width: int = 960,
) -> Image.Image:
    """Panels in rows of `columns` under a title, each over its caption, the legend at the foot. RGB, `width` wide.

    Words that need more lines than there is room for are cut.
    """
    kind = _Type.of(width)
    gap, inner = kind.margin, width - 2 * kind.margin
    slot = slot_width(width, columns)
    shown = [_fit(p, slot) for p in panels]
    notes = [wrap(c, kind.text, slot, 4) if c else [] for c in captions] or [[] for _ in shown]
    head = [(line, kind.title, INK) for line in wrap(title, kind.title, inner, 3)] if title else []
    head += [(line, kind.text, MUTED) for line in wrap(subtitle, kind.text, inner, 6)] if subtitle else []
    head_height = sum(_line(size) for _, size, _ in head) + (gap // 2 if head else 0)
    rows = [range(i, min(i + columns, len(shown))) for i in range(0, len(shown), columns)]
    heights = [max(shown[i].height + len(notes[i]) * _line(kind.text) for i in row) + gap for row in rows]
    foot = int(kind.text * LEGEND_HEIGHT) + gap if legend else 0
    page = Image.new("RGB", (width, gap + head_height + sum(heights) + foot), PAPER)
    draw = ImageDraw.Draw(page)
    y = gap
    for line, size, colour in head:
        write(draw, (gap, y), line, size, colour, bold=size == kind.title)
        y += _line(size)
    y = gap + head_height
    for row, height in zip(rows, heights, strict=True):
        for column, i in enumerate(row):
            x = gap + column * (slot + gap)
            page.paste(shown[i], (x, y))
            for number, line in enumerate(notes[i]):
                at = (x, y + shown[i].height + kind.text // 3 + number * _line(kind.text))
                write(draw, at, line, kind.text, INK)
        y += height
    if legend:
        legend(draw, gap, y, inner)
    return page


def _fit(panel: Image.Image, width: int) -> Image.Image:
    return panel.resize((width, max(1, round(panel.height * width / panel.width))), Image.Resampling.LANCZOS)


def _line(size: int) -> int:
    return round(size * 1.35)


def order_legend(kept: int, total: int, *, ordered: bool, tones: tuple[RGB, RGB], cut: bool = False) -> Legend:
    """Kept and dropped swatches with their counts, and the scale of the order of selection from 1 to `kept`.

    Args:
        tones: colours of what is kept and of what is dropped in the picture above.
        cut: add the swatch of the struck-out part that the model never saw.
    """

    def draw_legend(draw: ImageDraw.ImageDraw, left: int, top: int, width: int) -> None:
        size = max(11, (width + 40) // 42)
        below = top + round(size * 1.6)
        told = f"kept: {kept} of {total} tokens ({100 * kept / total:.1f} %)"
        edge = order_colour(kept // 2, kept) if ordered else (255, 255, 255)
        swatch(draw, (left, top), size, tones[0], told, edge=edge)
        wide = swatch(draw, (left, below), size, tones[1], f"dropped: {total - kept}")
        if cut:
            swatch(draw, (left + wide + size * 2, below), size, None, "not shown to the model")
        if ordered:
            bar = round(width * 0.38)
            _scale(draw, (left + width - bar, top, left + width, top + round(size * 1.1)), kept, size)

    return draw_legend


def swatch(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    size: int,
    fill: RGB | None,
    text: str,
    *,
    frame: int = 1,
    edge: RGB | None = None,
) -> float:
    """A coloured square (struck out if `fill` is None) and its text; returns their width together.

    Args:
        frame: pixels of its outline.
        edge: colour of a second outline inside the first.
    """
    x, y, side = at[0], at[1], round(size * 1.1)
    draw.rounded_rectangle((x, y, x + side, y + side), 3, fill=fill or (88, 88, 88), outline=INK, width=frame)
    if edge is not None:
        draw.rectangle((x + 1, y + 1, x + side - 1, y + side - 1), outline=edge, width=max(2, side // 8))
    if fill is None:
        for step in range(0, side, 6):
            draw.line((x + step, y + side, x + side, y + step), fill=(12, 14, 17), width=2)
            draw.line((x, y + side - step, x + side - step, y), fill=(12, 14, 17), width=2)
    draw.text((x + side * 1.4, y), text, font=font(size), fill=INK)
    return side * 1.4 + font(size).getlength(text)


def _scale(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], kept: int, size: int) -> None:
    left, top, right, bottom = box
    for x in range(left, right):
        draw.line((x, top, x, bottom), fill=order_colour(x - left, right - left))
    draw.rectangle(box, outline=INK)
    below, face = bottom + round(size * 0.3), font(size)
    draw.text((left, below), "1", font=face, fill=INK)
    draw.text((right, below), str(kept), font=face, fill=INK, anchor="ra")
    draw.text(((left + right) / 2, below), "order of selection", font=face, fill=MUTED, anchor="ma")
