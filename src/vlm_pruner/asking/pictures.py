"""The pictures and the HTML page of an answer: its selection on the image that was asked about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image

from vlm_pruner import __version__
from vlm_pruner.asking.answers import Answer, Run
from vlm_pruner.asking.facts import describe, facts
from vlm_pruner.asking.models import Loaded
from vlm_pruner.errors import InputError
from vlm_pruner.types import Selection
from vlm_pruner.viz import Entry, Layout, image_window, merge_map, overlay, overlay_panels, report_page, strip

__all__ = ["answer_layout", "answer_overlay", "answer_selection", "answers_page"]


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


def answers_page(loaded: Loaded, image: Image.Image, question: str, answers: Sequence[Answer]) -> str:
    """The self-contained HTML page that compares the answers; the first is the one with all tokens."""
    entries = [_entry(loaded, image, answer, answers[0]) for answer in answers]
    columns = [*facts(answers[0]), "probability of this answer", "probability of the full answer"]
    device = loaded.model.device.type.upper()
    dtype = str(loaded.model.dtype).removeprefix("torch.")
    return report_page(
        question=question,
        image=image,
        entries=entries,
        columns=columns,
        model=f"{loaded.name}, {device}, {dtype}",
        notes=(
            f"Times are medians of {answers[0].times.runs} runs, taken in turn after a warm-up, on {device}.",
            "First token: vision tower, prefill and selection. FLOPs and KV bytes are counted for the language model.",
            "Probabilities are products over the tokens of an answer, end mark included; decoding is greedy.",
            f"vlm-pruner {__version__}, torch {torch.__version__}.",
        ),
    )


def _entry(loaded: Loaded, image: Image.Image, answer: Answer, full: Answer) -> Entry:
    title, note = describe(answer)
    cells = [*facts(answer).values(), f"{answer.probability:.3f}", f"{answer.full_probability:.3f}"]
    same = None if answer is full else answer.text == full.text
    entry = Entry(title, answer.text, same, answer.probability, answer.full_probability, cells, note)
    if not answer.images or answer.images[0].selection is None:
        return entry
    layout, selection = answer_layout(loaded, image, answer), answer_selection(answer)
    picture = strip(overlay_panels(image, layout, selection, width=640, numbers=False))
    more = []
    if selection.source is not None:
        more.append(("Where the dropped tokens went", merge_map(image, layout, selection, title="", width=640)))
    return replace(entry, picture=picture, more=more, plan=answer.plan.to_json())
