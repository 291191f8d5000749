"""The page in Gradio."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from vlm_pruner.web.controls import about
from vlm_pruner.web.desk import Desk
from vlm_pruner.web.parts import lay_out
from vlm_pruner.web.wiring import wire

__all__ = ["build"]


def build(desk: Desk) -> Any:
    """The page as Gradio blocks."""
    with gr.Blocks(title="vlm-pruner", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.HTML(_hero(about(desk.service.loaded)))
        wire(page, desk, lay_out(desk))
    return page


def _hero(line: str) -> str:
    return (
        '<header class="vp-hero"><h1>How few image tokens does an answer need?</h1>'
        "<p>The same question, answered by the same model from all of its visual tokens and from few.</p>"
        f'<p class="vp-note">{escape(line)}</p></header>'
    )
