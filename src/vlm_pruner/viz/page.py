"""One self-contained HTML page: pictures, answers, probabilities, times and plans. No scripts, no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files

from PIL import Image

from vlm_pruner.viz.film import film_uri
from vlm_pruner.viz.palette import order_colour
from vlm_pruner.viz.text import shorten

__all__ = ["Entry", "data_uri", "report_page"]

LONGEST = 300  # signs of a question at the head


@dataclass(frozen=True)
class Entry:
    """One run: a method with a budget, or the untouched model."""

    title: str  # "VLM-Pruner, 64 tokens"
    answer: str
    same: bool | None  # as the untouched model's; None for that one itself
    probability: float  # of the run's own answer
    full_probability: float  # of the untouched model's answer
    cells: Sequence[str]  # one text for each column of the page
    note: str = ""  # "arXiv:2512.02700 - before decoder layer 2"
    picture: Image.Image | None = None
    more: Sequence[tuple[str, Image.Image]] = field(default=())  # further pictures, folded away
    plan: str = ""  # JSON
    film: Sequence[Image.Image] = field(default=())  # of a video, the pages of its animation
    reason: str = ""  # why it was not run; then it has no answer


def report_page(
    *,
    question: str,
    image: Image.Image,
    entries: Sequence[Entry],
    columns: Sequence[str],
    model: str,
    about: str = "",
    notes: Sequence[str] = (),
) -> str:
    """The page as text.

    Args:
        entries: runs, the untouched model first.
        columns: names of the cells of every entry.
        about: what was asked about, when and with what, for the head of the page.
        notes: for its foot.
    """
    css = files("vlm_pruner.viz").joinpath("report.css").read_text(encoding="utf-8")
    body = [_lead(question, image, entries[0], model, about), _table(entries, columns), _legend()]
    body.append('<section class="cards" aria-label="Runs with pruning">')
    body += [_card(entry, entries[0]) for entry in entries[1:]]
    body.append("</section>")
    body.append("<footer>" + "".join(f"<p>{escape(note)}</p>" for note in notes) + "</footer>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(shorten(question, 80))} | vlm-pruner</title>"
        f'<link rel="icon" href="data:,"><style>{css}</style></head>'
        f"<body>{''.join(body)}</body></html>\n"
    )


def data_uri(image: Image.Image, *, width: int = 640, quality: int = 84) -> str:
    """The image as a JPEG inside the page, at most `width` pixels wide."""
    if image.width > width:
        size = (width, max(1, round(image.height * width / image.width)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _lead(question: str, image: Image.Image, full: Entry, model: str, about: str) -> str:
    long = len(question) > LONGEST
    whole = f"<details><summary>The whole question</summary><p>{escape(question)}</p></details>" if long else ""
    return (
        '<header class="lead">'
        f'<img src="{data_uri(image)}" alt="The image that the question is about" width="{image.width}">'
        f'<div><p class="kicker">{escape(model)}</p><h1>{escape(shorten(question, LONGEST))}</h1>{whole}'
        f'<p class="muted">All visual tokens answer:</p><p class="answer">{escape(full.answer)}</p>'
        f"{_bar('probability', full.probability)}"
        f'<p class="muted about">{escape(about)}</p></div></header>'
    )


def _table(entries: Sequence[Entry], columns: Sequence[str]) -> str:
    """All runs. A narrow screen shows rows as cards, which browsers take for no table: roles say that they are one."""
    head = "".join(f'<th scope="col" role="columnheader">{escape(c)}</th>' for c in columns)
    rows = "".join(
        f'<tr role="row"><th scope="row" role="rowheader">{escape(e.title)}</th>'
        + _cell("answer", f"not run: {e.reason}" if e.reason else e.answer, "text")
        + "".join(_cell(name, cell, "none" if e.reason else "") for name, cell in zip(columns, e.cells, strict=True))
        + "</tr>"
        for e in entries
    )
    first = '<th scope="col" role="columnheader">run</th><th scope="col" role="columnheader" class="text">answer</th>'
    return (
        '<h2>Side by side</h2><div class="scroll" tabindex="0" role="region" aria-label="Table of all runs">'
        f'<table role="table"><thead role="rowgroup"><tr role="row">{first}{head}</tr></thead>'
        f'<tbody role="rowgroup">{rows}</tbody></table></div>'
    )


def _cell(name: str, text: str, kind: str) -> str:
    return f'<td role="cell" data-name="{escape(name)}" class="{kind}"><span>{escape(text)}</span></td>'


def _legend() -> str:
    stops = ", ".join("rgb({}, {}, {})".format(*order_colour(i, 9)) for i in range(9))
    return (
        '<h2>What was kept</h2><p class="legend"><span>Bright cells are kept, grey ones dropped.</span>'
        f'<span>Chosen first<i class="scale" style="background: linear-gradient(90deg, {stops})"></i>last</span></p>'
    )


def _card(entry: Entry, full: Entry) -> str:
    if entry.reason:
        return (
            f'<article class="card"><div><h3>{escape(entry.title)}</h3>'
            f'<p class="verdict other">not run</p><p class="muted">{escape(entry.reason)}</p></div></article>'
        )
    picture = ""
    if entry.picture is not None:
        picture = f'<img src="{data_uri(entry.picture)}" alt="Tokens kept by {escape(entry.title)}">'
    more = "".join(
        f'<details><summary>{escape(name)}</summary><img src="{data_uri(drawn)}" alt="{escape(name)}"></details>'
        for name, drawn in entry.more
    )
    if entry.film:
        name = f"Tokens kept by {escape(entry.title)}, frame by frame"
        more += f'<details><summary>Frame by frame</summary><img src="{film_uri(entry.film)}" alt="{name}"></details>'
    plan = f"<details><summary>Plan (JSON)</summary><pre>{escape(entry.plan)}</pre></details>" if entry.plan else ""
    verdict = ("same", "same answer as with all tokens") if entry.same else ("other", "differs from all tokens")
    bars = _bar("with all tokens", full.probability) + _bar("with these", entry.full_probability)
    own = f'<p class="muted">Probability of “{escape(entry.answer)}”</p>{_bar("with these", entry.probability)}'
    return (
        f'<article class="card">{picture}<div><h3>{escape(entry.title)}</h3><p class="muted">{escape(entry.note)}</p>'
        f'<p class="answer">{escape(entry.answer)}</p><p class="verdict {verdict[0]}">{verdict[1]}</p>'
        f'<p class="muted">Probability of “{escape(full.answer)}”</p>{bars}{"" if entry.same else own}'
        f"{more}{plan}</div></article>"
    )


def _bar(name: str, share: float) -> str:
    """A probability as a bar and a number."""
    return (
        f'<div class="bar"><span>{escape(name)}</span>'
        f'<span class="track"><i style="width: {100 * share:.1f}%"></i></span><b>{share:.3f}</b></div>'
    )
