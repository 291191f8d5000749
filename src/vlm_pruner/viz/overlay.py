"""Kept tokens bright, dropped ones dimmed, in the image's own geometry, with the order of selection."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageOps, ImageStat

from vlm_pruner.errors import InvalidSelectionError
from vlm_pruner.types import Selection
from vlm_pruner.viz.canvas import Legend, order_legend, sheet, slot_width
from vlm_pruner.viz.geometry import Layout, Panel
from vlm_pruner.viz.labels import beside, free_places, label_size, pill
from vlm_pruner.viz.palette import RGB, ink_on, order_colour
from vlm_pruner.viz.seen import Window

__all__ = [
    "cuts",
    "dimmed",
    "ground",
    "mark_window",
    "overlay",
    "overlay_panels",
    "pixel_box",
    "scaled",
    "selection_legend",
]


def overlay(
    image: Image.Image | Sequence[Image.Image],
    layout: Layout,
    selection: Selection,
    *,
    title: str = "Which visual tokens stay",
    subtitle: str = "",
    numbers: bool = True,
    width: int = 960,
) -> Image.Image:
    """The picture of one selection: every panel of the layout (frames of a video as a strip), a title and a legend.

    Args:
        image: the image as the user gave it, or the frames of a video.
        layout: where the n tokens lie on it.
        selection: which of them stay; its `order`, where there is one, gives colours and numbers.
        width: of the whole picture in pixels; it is readable down to 600.

    Raises:
        InvalidSelectionError: the selection points past the tokens of the layout.
    """
    columns = min(len(layout.panels), 4 if len(layout.panels) > 2 else 2)
    panels = overlay_panels(image, layout, selection, width=slot_width(width, columns), numbers=numbers)
    return sheet(
        panels,
        title=title,
        subtitle=subtitle,
        captions=[p.name for p in layout.panels],
        legend=selection_legend(image, layout, selection),
        columns=columns,
        width=width,
    )


def selection_legend(
    image: Image.Image | Sequence[Image.Image], layout: Layout, selection: Selection, kept: int | None = None
) -> Legend:
    """The legend of a picture of a selection, in the tones of what it shows as kept and as dropped.

    Args:
        kept: tokens that the legend tells of; None = those of the selection.
    """
    number = int(layout.panel[selection.index].mode().values)  # the panel that keeps most
    panel = layout.panels[number]
    picture, scale = ground(image if isinstance(image, Image.Image) else list(image)[panel.frame], panel, 120)
    mask = Image.new("L", picture.size, 0)
    for token in selection.index.tolist():
        if int(layout.panel[token]) == number:
            ImageDraw.Draw(mask).rectangle(pixel_box(layout, token, scale, picture.size), fill=255)
    rest = ImageOps.invert(mask) if mask.getextrema()[0] == 0 else None  # of everything, where nothing is dropped
    tones = _mean(picture, mask), _mean(dimmed(picture), rest)
    ordered = selection.order is not None
    return order_legend(kept or len(selection), len(layout), ordered=ordered, tones=tones, cut=cuts(image, layout))


def _mean(picture: Image.Image, mask: Image.Image | None) -> RGB:
    red, green, blue = (round(value) for value in ImageStat.Stat(picture, mask).mean)
    return red, green, blue


def overlay_panels(
    image: Image.Image | Sequence[Image.Image],
    layout: Layout,
    selection: Selection,
    *,
    width: int,
    numbers: bool = True,
    scale_to: int | None = None,
) -> list[Image.Image]:
    """One bare picture of `width` pixels for every panel of the layout, without title and legend.

    The colour scale ends at rank `scale_to`, the number of kept tokens unless a part of a selection is drawn.

    Raises:
        InvalidSelectionError: the selection points past the tokens of the layout.
    """
    if int(selection.index[-1]) >= len(layout):
        raise InvalidSelectionError(
            f"token {int(selection.index[-1])} is kept but the picture has {len(layout)} tokens"
        )
    frames = [image] if isinstance(image, Image.Image) else list(image)
    order = (selection.index if selection.order is None else selection.order).tolist()
    rank = {token: i for i, token in enumerate(order)}
    last = scale_to or len(rank)
    colours = {t: order_colour(i, last) if selection.order is not None else (255, 255, 255) for t, i in rank.items()}
    labels = {t: str(i + 1) for t, i in rank.items()} if numbers and selection.order is not None else {}
    return [
        _panel(frames[panel.frame % len(frames)], layout, number, colours, labels, width)
        for number, panel in enumerate(layout.panels)
    ]


def _panel(
    image: Image.Image, layout: Layout, number: int, colours: dict[int, RGB], labels: dict[int, str], width: int
) -> Image.Image:
    panel = layout.panels[number]
    picture, scale = ground(image, panel, width)
    boxes = {t: pixel_box(layout, t, scale, picture.size) for t in colours if int(layout.panel[t]) == number}
    mask = Image.new("L", picture.size, 0)
    stencil = ImageDraw.Draw(mask)
    for box in boxes.values():
        stencil.rectangle(box, fill=255)
    page = Image.composite(picture, dimmed(picture), mask)
    draw = ImageDraw.Draw(page)
    side = panel.side * scale
    for token, box in boxes.items():
        draw.rectangle(box, outline=colours[token], width=_frame(side))
    mark_window(page, panel.window, scale)
    size = label_size(side, len(colours)) if labels else 0
    for token, (side_of, free) in free_places(layout, number, list(boxes)).items() if size else ():
        at = beside(pixel_box(layout, free, scale, picture.size), side_of, labels[token], size)
        pill(draw, at, labels[token], size, colours[token], ink_on(colours[token]))
    return page


def ground(image: Image.Image, panel: Panel, width: int) -> tuple[Image.Image, float]:
    """What the cells of a panel are drawn on, at `width` pixels, and the factor to get there."""
    picture, scale = scaled(image, width)
    return (picture if panel.shown else Image.new("RGB", picture.size, (150, 150, 150))), scale


def _frame(side: float) -> int:
    """Width of the outline of a cell: visible at half the size, without hiding what is in a small cell."""
    return max(2 if side >= 12 else 1, round(side / 13))


def scaled(image: Image.Image, width: int) -> tuple[Image.Image, float]:
    """The image as RGB at `width` pixels, upright images at most as high as wide, and the factor to get there."""
    scale = min(width / image.width, width / image.height) if image.height > 2 * image.width else width / image.width
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS), scale


def dimmed(picture: Image.Image) -> Image.Image:
    """What is dropped: grey and dark, but still recognisable."""
    return ImageOps.grayscale(picture).point(lambda v: 26 + v * 0.38).convert("RGB")


def mark_window(page: Image.Image, window: Window, scale: float) -> None:
    """Strike out, in place, the part of the image that the processor cuts off: the model never saw it."""
    left, top, right, bottom = (round(v * scale) for v in window)
    wide, high = page.size
    for x0, y0, x1, y1 in ((0, 0, left, high), (right, 0, wide, high), (0, 0, wide, top), (0, bottom, wide, high)):
        if x1 <= x0 or y1 <= y0:
            continue
        part = page.crop((x0, y0, x1, y1))
        draw = ImageDraw.Draw(part)
        for start in range(-part.height, part.width, 10):
            draw.line((start, part.height, start + part.height, 0), fill=(12, 14, 17), width=3)
        page.paste(part, (x0, y0))


def cuts(image: Image.Image | Sequence[Image.Image], layout: Layout) -> bool:
    """Does the processor cut off some of the image, so that the picture has a struck-out part?"""
    first = image if isinstance(image, Image.Image) else image[0]
    window = layout.window
    return window.left >= 1 or window.top >= 1 or window.right <= first.width - 1 or window.bottom <= first.height - 1


def pixel_box(layout: Layout, token: int, scale: float, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Corners of a token's cell on a picture of `size`, inclusive; cells of padding outside shrink to its edge.

    Neighbours share no pixel and leave none out, whatever the scale.
    """
    box = [v * scale for v in layout.boxes[token].tolist()]
    left, right = (min(max(v, 0), size[0] - 1) for v in (round(box[0]), round(box[2]) - 1))
    top, bottom = (min(max(v, 0), size[1] - 1) for v in (round(box[1]), round(box[3]) - 1))
    return left, top, max(left, right), max(top, bottom)
