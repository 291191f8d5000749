"""The pictures of an answer: its selection on the image or the video that was asked about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from PIL import Image

from vlm_pruner.adapters import adapter_for
from vlm_pruner.asking.answers import Run
from vlm_pruner.asking.models import Loaded
from vlm_pruner.asking.prompts import prompt_inputs
from vlm_pruner.asking.videos import Shown
from vlm_pruner.asking.wording import describe
from vlm_pruner.engine import ImageRecord
from vlm_pruner.errors import InputError
from vlm_pruner.types import Selection
from vlm_pruner.video import Clip
from vlm_pruner.viz import (
    Layout,
    Window,
    film,
    film_layout,
    film_pages,
    overlay,
    picture_layout,
    save_film,
    seen_windows,
)
from vlm_pruner.viz.film import ANIMATED
from vlm_pruner.viz.patches import pixels_of
from vlm_pruner.viz.text import shorten

__all__ = ["answer_layout", "answer_overlay", "answer_selection", "save_overlay"]

LONGEST = 160  # signs of a question or an answer in a title


def answer_selection(answer: Run) -> Selection:
    """What was left of the image after the last stage, in the order of its tokens, whatever number of squares it took.

    Squares with budgets of their own each have their order; what came first in each comes first.

    Raises:
        InputError: the answer comes from the untouched model, from a prompt without an image, or from a small one that
            was left alone.
    """
    if all(record.selection is None for record in answer.images):
        raise InputError(f"nothing was pruned, so that there is nothing to draw: {answer.report}")
    return _joined(answer.images)


def _joined(records: Sequence[ImageRecord]) -> Selection:
    if len(records) == 1 and records[0].selection is not None:
        return records[0].selection
    parts = [(r, Selection(torch.arange(r.total)) if r.selection is None else r.selection) for r in records]
    index, ranks, source, first, slots = [], [], [], 0, 0
    for record, part in parts:
        index.append(part.index.cpu() + first)
        if part.order is not None:
            ranks += [(rank, first + token) for rank, token in enumerate(part.order.tolist())]
        own = torch.full((record.total,), -1)
        own[part.index.cpu()] = torch.arange(len(part))
        own = own if part.source is None else part.source.cpu()
        source.append(torch.where(own >= 0, own + slots, -1))
        first, slots = first + record.total, slots + len(part)
    ordered = all(part.order is not None for _, part in parts)
    merged = any(part.source is not None for _, part in parts)
    return Selection(
        index=torch.cat(index),
        order=torch.tensor([token for _, token in sorted(ranks)]) if ordered else None,
        source=torch.cat(source) if merged else None,
    )


def answer_layout(loaded: Loaded, shown: Shown, answer: Run) -> Layout:
    """Where the tokens of the picture, or of the video, lie on it."""
    if isinstance(shown, Image.Image):
        windows = _windows(loaded, shown.size, answer.images[0].grid)
        return picture_layout(windows, shown.size, answer.images)
    records, size = answer.images, shown.size
    if all(record.modality == "video" for record in records):
        window = _film_window(loaded, size)
        parts = [Layout.of(size, one.grid, one.position, window=window, total=one.total) for one in records]
    else:  # every frame is a picture, of one record or of several
        each, windows = len(records) // len(shown), _windows(loaded, size, records[0].grid)
        parts = [picture_layout(windows, size, records[k : k + each]) for k in range(0, len(records), each)]
    return film_layout(parts, len(shown), shown.times)


_KNOWN: WeakKeyDictionary[Any, dict[tuple[int, int, bool], list[Window] | None]] = WeakKeyDictionary()
"""What each processor shows of an image, or of a frame, of each size: it is asked three times to find out."""


def _windows(loaded: Loaded, size: tuple[int, int], grid: tuple[int, int, int]) -> list[Window] | None:
    known = _KNOWN.setdefault(loaded.processor, {})
    if (*size, False) not in known:
        known[(*size, False)] = seen_windows(lambda image: _pixels(loaded, image, grid), size)
    return known[(*size, False)]


def _film_window(loaded: Loaded, size: tuple[int, int]) -> Window:
    """The part of every frame that is seen; all of it where frames are lists of patches."""
    known = _KNOWN.setdefault(loaded.processor, {})
    if (*size, True) not in known:
        known[(*size, True)] = seen_windows(lambda image: _film_pixels(loaded, image), size)
    windows = known[(*size, True)]
    return windows[0] if windows else Window.whole(size)


def _pixels(loaded: Loaded, image: Image.Image, grid: tuple[int, int, int]) -> list[Any]:
    """The pixels of an image, prepared just as for a question: processors cut it up as their prompts say."""
    return pixels_of(_made(loaded, image), grid)


def _film_pixels(loaded: Loaded, image: Image.Image) -> list[Any]:
    """The pixels of a video of this image."""
    return [_made(loaded, Clip.of([image] * 2, 1.0))["pixel_values_videos"]]


def _made(loaded: Loaded, shown: Shown) -> dict[str, Any]:
    return prompt_inputs(loaded.processor, "x", shown, form=adapter_for(loaded.model.config.model_type).prompt)


def answer_overlay(loaded: Loaded, shown: Shown, question: str, answer: Run, width: int = 960) -> Image.Image:
    """Kept tokens bright with their order, dropped ones dimmed; titled with the plan, the question and the answer.

    A video is a strip of its frames, over bars of the tokens that each keeps.
    """
    title, note = describe(answer)
    layout, selection = answer_layout(loaded, shown, answer), answer_selection(answer)
    subtitle = f"“{shorten(question, LONGEST)}” Answer: {shorten(answer.text, LONGEST)} ({note})"
    many = len(answer.images) > 1
    if isinstance(shown, Clip):
        subtitle += " Every frame has a budget and an order of its own." if many else ""
        return film(shown.pictures(), layout, selection, title=title, subtitle=subtitle, width=width)
    if many:
        subtitle += f" The image was sent in {len(answer.images)} squares, each with a budget and an order of its own."
    return overlay(shown, layout, selection, title=title, subtitle=subtitle, width=width, numbers=not many)


def save_overlay(
    path: str | Path, loaded: Loaded, shown: Shown, question: str, answer: Run, width: int | None = None
) -> None:
    """Write the picture of an answer; of a video, a GIF or WebP plays it frame by frame."""
    if isinstance(shown, Image.Image) or Path(path).suffix.lower() not in ANIMATED:
        answer_overlay(loaded, shown, question, answer, width or 960).save(path, optimize=True)
        return
    layout, selection = answer_layout(loaded, shown, answer), answer_selection(answer)
    pages = film_pages(shown.pictures(), layout, selection, title=describe(answer)[0], width=width or 480)
    save_film(path, pages)
