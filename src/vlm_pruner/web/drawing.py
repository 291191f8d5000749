"""The picture of a selection as SVG whose cells carry their rank, so that the page can play the selection."""

from __future__ import annotations

from html import escape

import torch
from PIL import Image

from vlm_pruner.types import Selection
from vlm_pruner.video import Clip
from vlm_pruner.viz import Layout, data_uri, kept_per_frame
from vlm_pruner.viz.overlay import dimmed, ground, mark_window, pixel_box, scaled
from vlm_pruner.viz.palette import RGB, order_colour

__all__ = ["film_html", "plain_picture", "seen_picture", "selection_svg"]

WIDTH = 480  # pixels of a panel
FRAME = 320  # of a frame, of which there may be many


def plain_picture(image: Image.Image, name: str) -> str:
    """The image as it is."""
    picture, _ = scaled(image, WIDTH)
    return f'<img src="{data_uri(picture, width=WIDTH)}" alt="{escape(name)}">'


def seen_picture(image: Image.Image, layout: Layout, name: str) -> str:
    """The image with what the processor cuts off struck out, as beside it where tokens are dropped."""
    picture, scale = scaled(image, WIDTH)
    mark_window(picture, layout.window, scale)
    return plain_picture(picture, name)


def selection_svg(image: Image.Image, layout: Layout, selection: Selection, *, name: str, key: str) -> str:
    """One SVG for every panel of the layout: kept cells bright and framed in the colour of their rank, the rest dim.

    Cells of a selection with an order have `data-rank` (from 0) and the whole has `data-kept`: hiding the cells above a
    rank shows the selection as it was then.

    Args:
        name: what a screen reader says.
        key: letters and digits that no other picture on the page uses.
    """
    chosen = selection.index if selection.order is None else selection.order
    rank = {token: i for i, token in enumerate(chosen.tolist())}
    panels = [
        _panel(image, layout, n, rank, selection.order is not None, f"{key}-{n}") for n in range(len(layout.panels))
    ]
    ordered = f' data-kept="{len(selection)}"' if selection.order is not None else ""
    return f'<div class="vp-panels" role="img" aria-label="{escape(name)}"{ordered}>{"".join(panels)}</div>'


def film_html(clip: Clip, layout: Layout, selection: Selection, *, name: str) -> str:
    """Every frame with its kept tokens bright, one of them shown, over a bar for each: `data-frame` numbers both."""
    frames, counts = clip.pictures(), kept_per_frame(layout, selection)
    kept = set(selection.index.tolist())
    figures = [
        f'<figure data-frame="{n}"{" hidden" * (n > 0)}>{_still(frames[panel.frame], layout, n, kept)}'
        f"<figcaption>{escape(panel.name)}: {counts[n]} tokens kept</figcaption></figure>"
        for n, panel in enumerate(layout.panels)
    ]
    most = max(1, *counts)
    bars = "".join(
        f'<i data-frame="{n}" style="height:{100 * count / most:.0f}%"></i>' for n, count in enumerate(counts)
    )
    said = f"{name}: {len(selection)} of {len(layout)}, by frame {', '.join(map(str, counts))}"
    return (
        f'<div class="vp-film" data-frames="{len(counts)}" role="img" aria-label="{escape(said)}">{"".join(figures)}'
        f'<div class="vp-bars" aria-hidden="true">{bars}</div></div>'
    )


def _still(image: Image.Image, layout: Layout, number: int, kept: set[int]) -> str:
    """One picture under a dark sheet with a hole for every kept token."""
    panel = layout.panels[number]
    picture, scale = scaled(image, FRAME)
    mark_window(picture, panel.window, scale)
    wide, high = picture.size
    holes = []
    for token in torch.nonzero(layout.panel == number).flatten().tolist():
        if token in kept:
            left, top, right, bottom = pixel_box(layout, token, scale, picture.size)
            holes.append(f"M{left:g} {top:g}H{right + 1:g}V{bottom + 1:g}H{left:g}Z")
    sheet = f"M0 0H{wide}V{high}H0Z{''.join(holes)}"
    return (
        f'<svg viewBox="0 0 {wide} {high}" aria-hidden="true">'
        f'<image href="{data_uri(picture, width=FRAME, quality=72)}" width="{wide}" height="{high}"/>'
        f'<path d="{sheet}" fill="#0c0e11" fill-opacity=".78" fill-rule="evenodd"/></svg>'
    )


def _panel(image: Image.Image, layout: Layout, number: int, rank: dict[int, int], ordered: bool, key: str) -> str:
    panel = layout.panels[number]
    picture, scale = ground(image, panel, WIDTH)
    dim = dimmed(picture)
    mark_window(dim, panel.window, scale)
    holes, frames = [], []
    for token in torch.nonzero(layout.panel == number).flatten().tolist():
        if token not in rank:
            continue
        left, top, right, bottom = pixel_box(layout, token, scale, picture.size)
        place = f'x="{left:g}" y="{top:g}" width="{right - left + 1:g}" height="{bottom - top + 1:g}"'
        mark = f' data-rank="{rank[token]}"' if ordered else ""
        colour = order_colour(rank[token], len(rank)) if ordered else (255, 255, 255)
        holes.append(f"<rect {place}{mark}/>")
        frames.append(f'<rect {place}{mark} stroke="{_css(colour)}"/>')
    wide, high = picture.size
    stroke = max(1.0, panel.side * scale / 14)
    return (
        f'<svg viewBox="0 0 {wide} {high}" aria-hidden="true">'
        f'<image href="{data_uri(dim, width=WIDTH, quality=72)}" width="{wide}" height="{high}"/>'
        f'<clipPath id="{key}">{"".join(holes)}</clipPath>'
        f'<image href="{data_uri(picture, width=WIDTH)}" width="{wide}" height="{high}" clip-path="url(#{key})"/>'
        f'<g fill="none" stroke-width="{stroke:.1f}">{"".join(frames)}</g></svg>'
    )


def _css(colour: RGB) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
