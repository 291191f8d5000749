"""Which kept token absorbed which dropped ones: regions of one colour, the kept token marked."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from vlm_pruner.errors import InvalidSelectionError
from vlm_pruner.types import Selection
from vlm_pruner.viz.canvas import Legend, sheet, slot_width, swatch
from vlm_pruner.viz.geometry import Layout
from vlm_pruner.viz.labels import Box, beside, free_places, label_size, pill
from vlm_pruner.viz.overlay import dimmed, ground, mark_window, pixel_box
from vlm_pruner.viz.palette import INK, REGIONS, RGB, font, ink_on

__all__ = ["merge_map", "merge_panels", "region_colours"]


def merge_map(
    image: Image.Image | Sequence[Image.Image],
    layout: Layout,
    selection: Selection,
    *,
    title: str = "Where the dropped tokens went",
    subtitle: str = "",
    width: int = 960,
) -> Image.Image:
    """Every cell in the colour of the kept token that absorbed it; cells dropped without merging stay grey.

    Kept tokens have a frame and a number; a cell apart from the region of its kept token has that number, small.

    Raises:
        InvalidSelectionError: the method does not merge (`selection.source` is None).
    """
    columns = min(len(layout.panels), 4 if len(layout.panels) > 2 else 2)
    return sheet(
        merge_panels(image, layout, selection, width=slot_width(width, columns)),
        title=title,
        subtitle=subtitle,
        captions=[p.name for p in layout.panels],
        legend=_legend(selection),
        columns=columns,
        width=width,
    )


def merge_panels(
    image: Image.Image | Sequence[Image.Image], layout: Layout, selection: Selection, *, width: int
) -> list[Image.Image]:
    """One bare picture of `width` pixels for every panel of the layout, without title and legend.

    Raises:
        InvalidSelectionError: the method does not merge (`selection.source` is None).
    """
    if selection.source is None:
        raise InvalidSelectionError("this selection has no `source`: its method drops tokens and merges none")
    frames = [image] if isinstance(image, Image.Image) else list(image)
    colours = region_colours(layout, selection)
    return [
        _panel(frames[panel.frame % len(frames)], layout, number, selection, colours, width)
        for number, panel in enumerate(layout.panels)
    ]


def region_colours(layout: Layout, selection: Selection) -> list[RGB]:
    """A colour for every slot such that regions that touch differ where seven colours allow it (greedy colouring)."""
    assert selection.source is not None
    cells = {
        (int(p), int(y), int(x)): int(s)
        for p, (y, x), s in zip(layout.panel, layout.cell.tolist(), selection.source, strict=True)
        if p >= 0 and s >= 0
    }
    touching: list[set[int]] = [set() for _ in range(len(selection))]
    for (p, y, x), slot in cells.items():
        for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
            other = cells.get((p, y + dy, x + dx), slot)
            if other != slot:
                touching[slot].add(other)
                touching[other].add(slot)
    chosen: list[int] = []
    uses = [0] * len(REGIONS)
    for slot, others in enumerate(touching):
        taken = [chosen[o] for o in others if o < slot]
        best = min(range(len(REGIONS)), key=lambda c: (taken.count(c), uses[c], c))
        chosen.append(best)
        uses[best] += 1
    return [REGIONS[c] for c in chosen]


def _panel(
    image: Image.Image, layout: Layout, number: int, selection: Selection, colours: list[RGB], width: int
) -> Image.Image:
    assert selection.source is not None
    panel = layout.panels[number]
    picture, scale = ground(image, panel, width)
    page, tint = dimmed(picture), Image.new("RGB", picture.size)
    veil = Image.new("L", picture.size, 0)
    on_tint, on_veil = ImageDraw.Draw(tint), ImageDraw.Draw(veil)
    kept = {token: slot for slot, token in enumerate(selection.index.tolist())}
    tokens = [t for t in range(len(layout)) if int(layout.panel[t]) == number and int(selection.source[t]) >= 0]
    boxes = {t: pixel_box(layout, t, scale, picture.size) for t in tokens}
    for t, (left, top, right, bottom) in boxes.items():
        on_tint.rectangle((left, top, right, bottom), fill=colours[int(selection.source[t])])
        on_veil.rectangle((left, top, right, bottom), fill=120)
    page = Image.composite(tint, Image.blend(page, picture, 0.5), veil)
    draw = ImageDraw.Draw(page)
    side = panel.side * scale
    _borders(draw, layout, number, selection, boxes)
    size, joined = label_size(side, len(selection)), _joined(layout, selection, tokens)
    for t, box in boxes.items():
        slot = int(selection.source[t])
        if t in kept:
            draw.rectangle(box, outline=INK, width=max(1, round(side / 10)))
        elif size and t not in joined:
            middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            draw.text(middle, str(slot + 1), font=font(max(8, size * 2 // 3)), fill=INK, anchor="mm")
    mark_window(page, panel.window, scale)
    if size:
        _number(draw, layout, number, selection, boxes, colours, size)
    return page


def _number(
    draw: ImageDraw.ImageDraw,
    layout: Layout,
    number: int,
    selection: Selection,
    boxes: dict[int, Box],
    colours: list[RGB],
    size: int,
) -> None:
    """The number of every survivor, on a cell beside it: one that it absorbed, if there is one."""
    slot = selection.source
    assert slot is not None
    kept = [t for t in selection.index.tolist() if t in boxes]
    for token, (side, free) in free_places(layout, number, kept, lambda a, b: bool(slot[a] == slot[b])).items():
        if free in boxes:
            text, fill = str(int(slot[token]) + 1), colours[int(slot[token])]
            pill(draw, beside(boxes[free], side, text, size), text, size, fill, ink_on(fill))


def _joined(layout: Layout, selection: Selection, tokens: list[int]) -> set[int]:
    """Those tokens of a panel that hang together, cell by cell, with the survivor that absorbed them."""
    assert selection.source is not None
    at = {(int(layout.cell[t, 0]), int(layout.cell[t, 1])): t for t in tokens}
    slot = {t: int(selection.source[t]) for t in tokens}
    reached = set(selection.index.tolist()) & set(tokens)
    border = list(reached)
    while border:
        t = border.pop()
        y, x = int(layout.cell[t, 0]), int(layout.cell[t, 1])
        for cell in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            other = at.get(cell)
            if other is not None and other not in reached and slot[other] == slot[t]:
                reached.add(other)
                border.append(other)
    return reached


def _borders(
    draw: ImageDraw.ImageDraw,
    layout: Layout,
    number: int,
    selection: Selection,
    boxes: dict[int, tuple[float, float, float, float]],
) -> None:
    """White lines wherever two neighbouring cells belong to different survivors."""
    assert selection.source is not None
    slot_at = {
        (int(layout.cell[t, 0]), int(layout.cell[t, 1])): (int(selection.source[t]), box) for t, box in boxes.items()
    }
    for (y, x), (slot, (left, top, right, bottom)) in slot_at.items():
        if slot_at.get((y, x + 1), (slot,))[0] != slot:
            draw.line((right, top, right, bottom), fill=(255, 255, 255), width=2)
        if slot_at.get((y + 1, x), (slot,))[0] != slot:
            draw.line((left, bottom, right, bottom), fill=(255, 255, 255), width=2)


def _legend(selection: Selection) -> Legend:
    assert selection.source is not None
    traced = int((selection.source >= 0).sum())
    kept, total = len(selection), selection.source.shape[0]

    def draw_legend(draw: ImageDraw.ImageDraw, left: int, top: int, width: int) -> None:
        size = max(11, (width + 40) // 42)
        below = top + round(size * 1.6)
        swatch(draw, (left, top), size, REGIONS[1], f"framed and numbered: {kept} of {total} tokens kept", frame=3)
        wide = swatch(draw, (left, below), size, REGIONS[1], f"same colour: merged into it ({traced - kept})")
        if traced < total:
            swatch(draw, (left + wide + size * 2, below), size, (88, 88, 88), f"left no trace: {total - traced}")

    return draw_legend
