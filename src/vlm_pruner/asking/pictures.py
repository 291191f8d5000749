"""The pictures of an answer: its selection on the image that was asked about."""

from __future__ import annotations

from PIL import Image

from vlm_pruner.asking.answers import Run
from vlm_pruner.asking.facts import describe
from vlm_pruner.asking.models import Loaded
from vlm_pruner.errors import InputError
from vlm_pruner.types import Selection
from vlm_pruner.viz import Layout, image_window, overlay

__all__ = ["answer_layout", "answer_overlay", "answer_selection"]


def answer_selection(answer: Run) -> Selection:
    """What was left of the image after the last stage, in the image's own coordinates.

    Raises:
        InputError: the answer comes from the untouched model, from a prompt without an image, or from a small one that
            was left alone.
    """
    selection = answer.images[0].selection if answer.images else None
    if selection is None:
        raise InputError(f"nothing was pruned, so that there is nothing to draw: {answer.report}")
    return selection


def answer_layout(loaded: Loaded, image: Image.Image, answer: Run) -> Layout:
    """Where the tokens of the image lie on it."""
    record = answer.images[0]
    window = image_window(loaded.processor, image.size)
    return Layout.of(image.size, record.grid, record.position, window=window, total=record.total)


def answer_overlay(loaded: Loaded, image: Image.Image, question: str, answer: Run, width: int = 960) -> Image.Image:
    """Kept tokens bright with their order, dropped ones dimmed; titled with the plan, the question and the answer."""
    title, note = describe(answer)
    layout, selection = answer_layout(loaded, image, answer), answer_selection(answer)
    subtitle = f"“{question}” Answer: {answer.text} ({note})"
    return overlay(image, layout, selection, title=title, subtitle=subtitle, width=width)
