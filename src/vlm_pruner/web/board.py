"""The results of a comparison as HTML, event by event. Pure: a browser only has to show the text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from types import MappingProxyType

from vlm_pruner.asking import Loaded, Run, describe, title_of
from vlm_pruner.asking.pictures import answer_layout, answer_selection
from vlm_pruner.video import Clip
from vlm_pruner.viz import data_uri, merge_map
from vlm_pruner.viz.film import contact
from vlm_pruner.web.drawing import film_html, plain_picture, selection_svg
from vlm_pruner.web.gallery import Picture
from vlm_pruner.web.service import Done, Event, Failed, Said, Started, Stopped, Waiting
from vlm_pruner.web.settings import Choice, Own

__all__ = ["COPY", "Board", "alert"]

COPY = '<button type="button" class="vp-copy">Copy</button>'
"""Copies the <pre> beside it."""

_OPEN = ("waiting", "working")


def alert(message: str) -> str:
    """A message that a screen reader says at once; empty text clears it."""
    return f'<p class="vp-alert" role="alert">{escape(message)}</p>' if message else ""


@dataclass
class _Column:
    title: str
    note: str
    state: str = "waiting"  # waiting, working, done, failed, stopped
    text: str = ""
    run: Run | None = None


class Board:
    """One column for the answer with all tokens and one for each choice."""

    def __init__(
        self,
        loaded: Loaded,
        picture: Picture,
        question: str,
        choices: Sequence[Choice],
        own: Own = MappingProxyType({}),
    ) -> None:
        self.loaded, self.picture, self.question = loaded, picture, question
        self.columns = [_Column("All tokens", "nothing is pruned")]
        self.columns += [_Column(*choice.title(own)) for choice in choices]
        self._ahead = 0

    def apply(self, event: Event) -> int | None:
        """Take the event in; the column that looks different now, None if all may."""
        if isinstance(event, Stopped):
            for column in self.columns:
                column.state = "stopped" if column.state in _OPEN else column.state
            return None
        column = self.columns[event.column]
        self._ahead = event.ahead if isinstance(event, Waiting) else 0
        match event:
            case Started():
                column.state = "working"
            case Said(text=text):
                column.text = text
            case Done(run=run):
                column.state, column.run, column.text = "done", run, run.text
                kept = f"{run.report.kept} of {run.report.total} tokens"
                schedule = title_of(run.plan) if len(run.plan.stages) > 1 else ""
                column.note = "; ".join(filter(None, (kept, schedule, describe(run)[1])))
            case Failed(message=message):
                column.state, column.text = "failed", message
        return event.column

    @property
    def status(self) -> str:
        """Progress in one line, said politely by screen readers, over a bar."""
        total, ended = len(self.columns), sum(c.state not in _OPEN for c in self.columns)
        busy = next((c for c in self.columns if c.state in _OPEN), None)
        if any(c.state == "stopped" for c in self.columns):
            text = "Stopped."
        elif busy is None:
            text = f"Done. {self._summary()}".strip()
        elif self._ahead:
            others = "1 answer" if self._ahead == 1 else f"{self._ahead} answers"
            text = f"Waiting for {others} of other visitors, then: {busy.title}."
        else:
            text = f"Answer {ended + 1} of {total}: {busy.title}."
        bar = f'<progress max="{total}" value="{ended}" aria-label="Answers that are ready"></progress>'
        return f'<div class="vp-status"><p role="status">{escape(text)}</p>{bar if busy else ""}</div>'

    def _summary(self) -> str:
        """How many of the methods agree with the answer from all tokens, and how many could not answer."""
        full, tried = self.columns[0].run, self.columns[1:]
        failed = sum(c.state == "failed" for c in self.columns)
        same = sum(full is not None and c.run is not None and c.run.text == full.text for c in tried)
        said = [f"{same} of {len(tried)} give the answer of all tokens."] if full is not None and tried else []
        if failed:
            said.append(f"{failed} could not answer.")
        return " ".join(said)

    def card(self, number: int) -> str:
        """The column as HTML."""
        column = self.columns[number]
        busy = "true" if column.state in _OPEN else "false"
        body = {"waiting": _muted("waits"), "stopped": _muted("stopped")}.get(column.state, "")
        if column.state == "failed":
            body = alert(column.text)
        elif column.text or column.state == "done":
            body = f'<p class="vp-answer">{escape(column.text) or "(nothing)"}</p>' + body
        elif column.state == "working":
            body = '<p class="vp-answer vp-thinking">…</p>'
        head = f'<h3>{escape(column.title)}</h3><p class="vp-note">{escape(column.note)}</p>'
        tail = "" if column.run is None else self._result(number, column, column.run)
        return f'<article class="vp-card" aria-busy="{busy}" data-state="{column.state}">{head}{body}{tail}</article>'

    def _result(self, number: int, column: _Column, run: Run) -> str:
        parts = self._verdicts(run), self._drawn(number, column, run), self._facts(run), self._merged(run)
        return "".join(parts) + (_plan(run) if number else "")

    def _verdicts(self, run: Run) -> str:
        full, truth = self.columns[0].run, self.picture.truth(self.question)
        said = []
        if run is not full and full is not None:
            same = run.text == full.text
            said.append(("same", "= all tokens") if same else ("other", "≠ all tokens"))
        if truth is not None:
            right = self.picture.verdict(self.question, run.text)
            said.append(("right", "✓ right") if right else ("wrong", f"✗ it is {truth}"))
        return '<p class="vp-verdicts">' + "".join(f'<span class="vp-{k}">{escape(t)}</span>' for k, t in said) + "</p>"

    def _drawn(self, number: int, column: _Column, run: Run) -> str:
        image = self.picture.image
        if all(record.selection is None for record in run.images):
            notes = dict.fromkeys(record.note for record in run.images if record.note)
            if isinstance(image, Clip):
                drawn = plain_picture(contact(image.pictures(), image.times), "All frames: nothing was pruned")
            else:
                drawn = plain_picture(image, "The whole picture: nothing was pruned")
            return drawn + "".join(map(_muted, notes))
        layout, selection = answer_layout(self.loaded, image, run), answer_selection(run)
        if isinstance(image, Clip):
            return film_html(image, layout, selection, name=f"Tokens that {column.title} keeps")
        name = f"Tokens that {column.title} keeps: {len(selection)} of {len(layout)}"
        key = f"vp{number}" + re.sub(r"\W", "", column.title)
        drawn = selection_svg(image, layout, selection, name=name, key=key)
        if selection.order is None:
            drawn += _muted("takes all of them at once, in no order")
        return drawn

    def _merged(self, run: Run) -> str:
        if all(record.selection is None or record.selection.source is None for record in run.images):
            return ""
        image, layout = self.picture.image, answer_layout(self.loaded, self.picture.image, run)
        frames = image.pictures() if isinstance(image, Clip) else image
        drawn = data_uri(merge_map(frames, layout, answer_selection(run), title="", width=WIDE), width=WIDE)
        return _fold("Where the dropped tokens went", f'<img src="{drawn}" alt="Which token took which others in">')

    def _facts(self, run: Run) -> str:
        full = self.columns[0].run or run
        rows = [_fact(name, get(run), get(full), digits) for name, get, digits in _NUMBERS]
        if run is not full:
            rows.insert(5, _fact("of it selection, ms", run.times.selection_ms, None, 1))
        return f'<dl class="vp-facts">{"".join(rows)}</dl>'


WIDE = 640

_NUMBERS = (
    ("tokens asked for", lambda run: run.report.asked or None, 0),
    ("left at the end", lambda run: run.report.kept or None, 0),
    ("per layer, mean", lambda run: run.report.layer_average or None, 1),
    ("first token, ms", lambda run: run.times.first_token_ms, 0),
    ("prefill, ms", lambda run: run.times.prefill_ms, 1),
    ("per further token, ms", lambda run: run.times.decode_ms_per_token, 1),
    ("prefill, GFLOPs", lambda run: _scaled(run.report.flops_pruned, 1e9), 2),
    ("KV cache, MB", lambda run: _scaled(run.report.kv_bytes_pruned, 1e6), 2),
)


def _scaled(value: int | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _fact(name: str, value: float | None, full: float | None, digits: int) -> str:
    """A name, a number and a bar as long as the number's share of what all tokens cost."""
    if value is None:
        return f"<div><dt>{name}</dt><dd>-</dd></div>"
    share = 100 * min(1.0, value / full) if full else 0
    bar = f'<i style="width:{share:.1f}%"></i>' if full else ""
    return f"<div><dt>{name}</dt><dd>{value:.{digits}f}</dd>{bar}</div>"


def _plan(run: Run) -> str:
    return _fold(
        "Plan (JSON)", f'<div class="vp-source">{COPY}<pre tabindex="0">{escape(run.plan.to_json())}</pre></div>'
    )


def _fold(name: str, inside: str) -> str:
    return f"<details><summary>{name}</summary>{inside}</details>"


def _muted(text: str) -> str:
    return f'<p class="vp-note">{escape(text)}</p>'
