"""The page in Gradio."""

from __future__ import annotations

from typing import Any

import gradio as gr

from vlm_pruner.web.desk import Desk
from vlm_pruner.web.parts import lay_out
from vlm_pruner.web.wiring import wire

__all__ = ["build"]

HERO = (
    '<header class="vp-hero"><h1>How few image tokens does an answer need?</h1>'
    "<p>One model, one question: answered from all of its visual tokens, and from few.</p></header>"
)


def build(desk: Desk) -> Any:
    """The page as Gradio blocks."""
    with gr.Blocks(title="vlm-pruner", analytics_enabled=False, delete_cache=(600, 3600), fill_width=True) as page:
        gr.HTML(HERO)
        wire(page, desk, lay_out(desk))
    return page
