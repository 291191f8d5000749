"""Lists and sliders of the browser itself, as components of Gradio.

Gradio's handle a key some time after it was pressed, so that whoever is fast, on a machine that is slow, leaves them
before they have taken the choice in; and its slider is three times as high.
"""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

__all__ = ["choice_list", "share_slider"]


def choice_list(options: list[tuple[str, str]], value: object, label: str) -> Any:
    """A list of (label, value)."""
    inside = "".join(f'<option value="{escape(key)}">{escape(name)}</option>' for name, key in options)
    return _component(f'<select aria-label="{escape(label)}">{inside}</select>', value, label, _LIST)


def share_slider(value: object, label: str) -> Any:
    """A share from 1 to 100 %, with its number."""
    slider = f'<input type="range" min="1" max="100" step="1" aria-label="{escape(label)}">'
    return _component(f'<b aria-hidden="true"></b>{slider}', value, label, _SLIDER)


def _component(inside: str, value: object, label: str, script: str) -> Any:
    for sign in "`${}":  # Gradio reads templates of its own between these
        inside = inside.replace(sign, f"&#{ord(sign)};")
    template = f'<div class="vp-input">{inside}</div>'
    return gr.HTML(value, html_template=template, js_on_load=script, apply_default_css=False, label=label, min_width=60)


_LIST = """
const list = element.querySelector("select");
const show = () => { list.value = props.value; list.title = list.selectedOptions[0]?.text ?? ""; };
list.addEventListener("change", () => { props.value = list.value; show(); });
watch("value", show);
show();
"""

_SLIDER = """
const [shown, slider] = [element.querySelector("b"), element.querySelector("input")];
const tell = (percent) => {
  shown.textContent = `${percent} %`;
  slider.setAttribute("aria-valuetext", `${percent} %`);
};
const show = () => { slider.value = props.value; tell(props.value); };
slider.addEventListener("input", () => tell(slider.value));
slider.addEventListener("change", () => { props.value = Number(slider.value); });
watch("value", show);
show();
"""
