"""The components of the page and their order on the screen."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
from PIL import Image

from vlm_pruner.asking import VIDEO_FILES, notes_about
from vlm_pruner.video import Clip
from vlm_pruner.viz import data_uri
from vlm_pruner.viz.film import contact
from vlm_pruner.viz.palette import order_colour
from vlm_pruner.web.board import COPY
from vlm_pruner.web.controls import NOBODY, about, layer_options, method_options, row_of
from vlm_pruner.web.desk import COLUMNS, Desk, Shared
from vlm_pruner.web.gallery import Picture, gallery
from vlm_pruner.web.inputs import choice_list, share_slider
from vlm_pruner.web.settings import MAX_CHOICES, MAX_MEGABYTES, MAX_TOKENS, Settings

__all__ = ["Parts", "lay_out", "preview_html", "share_html", "thumbs_css"]

NOTE = (
    "Each time is measured once, after a run that is not counted and without other visitors' questions; it differs a "
    "little from run to run. First token: vision tower, prefill and selection together. Methods that prune in several "
    "steps may leave fewer tokens at the end than asked for; the mean over the layers shows what a budget costs. "
    "Prefill FLOPs and KV cache are those of the language model. Bars show the share of what all tokens cost."
)


@dataclass(frozen=True)
class Parts:
    """The components that handlers read or write."""

    key: Any
    uploaded: Any
    preview: Any
    thumbs: Any
    upload: Any
    refused: Any
    question: Any
    samples: Any
    rows: list[Any]  # method, percent, layer of each choice
    notes: list[Any]  # what is said of each
    tokens: Any
    ask: Any
    stop: Any
    alert: Any
    status: Any
    cards: list[Any]
    share: Any


def preview_html(picture: Picture) -> str:
    """The chosen picture, large."""
    shown = picture.image
    if isinstance(shown, Clip):
        size = f"{len(shown)} frames of {shown.duration:.1f} seconds, {shown.size[0]} x {shown.size[1]} pixels"
        face = contact(shown.pictures(), shown.times, width=800)
    else:
        size, face = f"{shown.width} x {shown.height} pixels", shown
    return (
        f'<figure class="vp-preview"><img src="{data_uri(face, width=800)}" alt="{escape(picture.title)}">'
        f"<figcaption>{escape('; '.join((f'{picture.title}, {size}', *notes_about(shown))))}</figcaption></figure>"
    )


def share_html(shared: Shared) -> str:
    """Link and Python, each with a button that copies it."""
    link, code = escape(shared.link), escape(shared.code)
    return (
        "<h2>Take it with you</h2><h3>Link to these settings</h3>"
        f'<div class="vp-source">{COPY}<pre id="vp-link"><a href="{link}">{link}</a></pre></div>'
        "<h3>The same in Python</h3>"
        f'<div class="vp-source">{COPY}<pre id="vp-code" tabindex="0">{code}</pre></div>'
    )


def thumbs_css() -> str:
    """The shipped pictures as the faces of their radio buttons, in the order of the gallery."""
    shown = [picture.image for picture in gallery().values() if isinstance(picture.image, Image.Image)]
    faces = (image.convert("RGB").resize((160, 160)) for image in shown)
    rule = "#vp-thumbs label:nth-of-type({}) {{ background-image: url({}); }}"
    return "\n".join(rule.format(i + 1, data_uri(face, quality=70)) for i, face in enumerate(faces))


def lay_out(desk: Desk) -> Parts:
    """Put every component on the page that is being built, set for the first shipped picture."""
    first = gallery()["demo"]
    state = {"key": gr.State(first.key), "uploaded": gr.State(None, time_to_live=3600)}
    with gr.Row(elem_classes="vp-bench", equal_height=False):
        with gr.Column(elem_classes="vp-controls", min_width=0):
            picture = _picture_part(first)
            controls = _control_part(desk, first)
        with gr.Column(elem_classes="vp-answers", min_width=0):
            status = gr.HTML(status_html(about(desk.service.loaded)), elem_id="vp-status")
            gr.HTML(_player(), elem_id="vp-player")
            with gr.Row(elem_classes="vp-results", elem_id="vp-results"):
                cards = [gr.HTML("", elem_classes="vp-slot") for _ in range(COLUMNS)]
            gr.HTML(f'<p class="vp-note vp-notes">{NOTE} {escape(about(desk.service.loaded))}</p>')
    share = gr.HTML("", elem_id="vp-share")
    return Parts(**state, **picture, **controls, status=status, cards=cards, share=share)


def status_html(line: str) -> str:
    """What stands in the place of the answers before anybody asks."""
    told = f'<p>The answers appear here, side by side.</p><p class="vp-note">{escape(line)}</p>'
    return f'<div class="vp-empty">{told}</div>'


def _picture_part(first: Picture) -> dict[str, Any]:
    with gr.Row(elem_classes="vp-picture", equal_height=False):
        preview = gr.HTML(preview_html(first), elem_id="vp-preview")
        thumbs = gr.Radio(
            [(picture.title, picture.key) for picture in gallery().values()],
            value=first.key, label="Pictures", elem_id="vp-thumbs", min_width=0,
        )  # fmt: skip
        kinds = ["image", "video", *VIDEO_FILES]
        upload = gr.File(
            label="Or your own picture or video", file_types=kinds, height=48, elem_id="vp-upload", show_label=False
        )
    gr.HTML(f'<p class="vp-alert" role="alert" id="vp-unsent" data-megabytes="{MAX_MEGABYTES}" hidden></p>')
    refused = gr.HTML("", elem_id="vp-refused")
    return {"preview": preview, "thumbs": thumbs, "upload": upload, "refused": refused}


def _control_part(desk: Desk, first: Picture) -> dict[str, Any]:
    with gr.Row(elem_classes="vp-asking"):
        question = gr.Textbox(
            label="Question", value=first.questions[0], lines=1, max_lines=4, elem_id="vp-question", min_width=120
        )
        ask = gr.Button("Ask", variant="primary", elem_id="vp-ask", scale=0, min_width=84)
        stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="vp-stop", scale=0, min_width=64)
    alert = gr.HTML("", elem_id="vp-alert")
    samples = gr.Radio(list(first.questions), label="Questions to try", elem_id="vp-samples")
    rows, notes = _choice_rows(desk)
    with gr.Accordion("More", open=False):
        tokens = gr.Slider(1, MAX_TOKENS, value=Settings().max_new_tokens, step=1, label="Longest answer, tokens")
    return {
        "question": question, "samples": samples, "rows": rows, "notes": notes, "tokens": tokens, "ask": ask,
        "stop": stop, "alert": alert,
    }  # fmt: skip


def _choice_rows(desk: Desk) -> tuple[list[Any], list[Any]]:
    """Method, percent and layer of every row; and what is said of each."""
    methods = [("(none)", NOBODY), *method_options(desk.service.loaded, desk.service.own)]
    layers = layer_options(desk.service.loaded.layers)
    values = row_of(Settings().choices)
    rows: list[Any] = []
    notes = []
    heads = "".join(f"<span>{head}</span>" for head in ("Method", "Keep", "Tokens", "Where"))
    gr.HTML(f'<div class="vp-heads" aria-hidden="true">{heads}</div>')
    for number in range(MAX_CHOICES):
        method, percent, layer = values[3 * number : 3 * number + 3]
        with gr.Row(elem_classes="vp-choice", elem_id=f"vp-choice-{number + 1}"):
            rows += [
                choice_list(methods, method, f"Method {number + 1}"),
                share_slider(percent, f"Keep {number + 1}, %"),
                choice_list(layers, layer, f"Where {number + 1}"),
            ]
            notes.append(gr.HTML("", elem_classes="vp-told"))
    return rows, notes


def _player() -> str:
    stops = ", ".join("rgb({}, {}, {})".format(*order_colour(i, 9)) for i in range(9))
    return (
        '<div class="vp-player" role="group" aria-label="Order of selection">'
        '<button type="button" id="vp-play">Play</button>'
        '<label for="vp-order">Order of selection</label>'
        '<input type="range" id="vp-order" min="0" max="100" value="100" step="1" aria-describedby="vp-shown">'
        '<output id="vp-shown" for="vp-order">all that was kept</output>'
        f'<span class="vp-scale">first<i style="background:linear-gradient(90deg, {stops})"></i>last</span></div>'
        '<div class="vp-player vp-scrub" role="group" aria-label="Frames">'
        '<label for="vp-frame">Frame</label>'
        '<input type="range" id="vp-frame" min="1" max="1" value="1" step="1" aria-describedby="vp-moment">'
        '<output id="vp-moment" for="vp-frame"></output></div>'
    )
