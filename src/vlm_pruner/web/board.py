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
from vlm_pruner.viz.overlay import cuts
from vlm_pruner.web.controls import outside
from vlm_pruner.web.drawing import film_html, plain_picture, seen_picture, selection_svg
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
        self.guess = outside(loaded, bool(picture.truths), question)
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
            text = " ".join(filter(None, ("Done.", self._summary(), self.guess)))
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
        """The column as HTML: as many parts as every other card has, so that they can stand in rows."""
        column, run = self.columns[number], self.columns[number].run
        busy = "true" if column.state in _OPEN else "false"
        body = {"waiting": _muted("waits"), "stopped": _muted("stopped")}.get(column.state, "")
        if column.state == "failed":
            body = alert(column.text)
        elif column.text or column.state == "done":
            body = f'<p class="vp-answer">{escape(column.text) or "(nothing)"}</p>' + body
        elif column.state == "working":
            body = '<p class="vp-answer vp-thinking">…</p>'
        parts = [f'<h3>{escape(column.title)}</h3><p class="vp-note">{escape(column.note)}</p>', body]
        if run is not None:
            parts += [self._verdicts(run), self._drawn(number, column, run), self._remarks(run), self._facts(run)]
            parts.append(self._merged(run) + (_plan(run) if number else ""))
        rows = "".join(f"<div>{part}</div>" for part in parts)
        return f'<article class="vp-card" aria-busy="{busy}" data-state="{column.state}">{rows}</article>'

    def _verdicts(self, run: Run) -> str:
        full, truth = self.columns[0].run, self.picture.truth(self.question)
        said = []
        if run is not full and full is not None:
            said.append((self._likeness(run, full), f"{'=' if run.text == full.text else '≠'} all tokens"))
        if truth is not None:
            right = self.picture.verdict(self.question, run.text)
            said.append(("right", "✓ right") if right else ("wrong", f"✗ it is {truth}"))
        return '<p class="vp-verdicts">' + "".join(f'<span class="vp-{k}">{escape(t)}</span>' for k, t in said) + "</p>"

    def _likeness(self, run: Run, full: Run) -> str:
        """The kind of a verdict: agreement is good only where the answer from all tokens may be right."""
        if self.guess or self.picture.verdict(self.question, full.text) is False:
            return "even"
        return "same" if run.text == full.text else "other"

    def _drawn(self, number: int, column: _Column, run: Run) -> str:
        image = self.picture.image
        if _untouched(run):
            if isinstance(image, Clip):
                return plain_picture(contact(image.pictures(), image.times), "All frames: nothing was pruned")
            layout = answer_layout(self.loaded, image, run)
            cut = "; what the model does not see is struck out" if cuts(image, layout) else ""
            return seen_picture(image, layout, f"The whole picture: nothing was pruned{cut}")
        layout, selection = answer_layout(self.loaded, image, run), answer_selection(run)
        if isinstance(image, Clip):
            return film_html(image, layout, selection, name=f"Tokens that {column.title} keeps")
        name = f"Tokens that {column.title} keeps: {len(selection)} of {len(layout)}"
        key = f"vp{number}" + re.sub(r"\W", "", column.title)
        return selection_svg(image, layout, selection, name=name, key=key)

    def _remarks(self, run: Run) -> str:
        """What is to be said of the picture."""
        if _untouched(run):
            return "".join(map(_muted, dict.fromkeys(record.note for record in run.images if record.note)))
        ordered = isinstance(self.picture.image, Clip) or answer_selection(run).order is not None
        return "" if ordered else _muted("This method chooses all tokens at once, in no order.")

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
        rows.insert(5, _fact("of it selection, ms", None if run is full else run.times.selection_ms, None, 1))
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


def _untouched(run: Run) -> bool:
    return all(record.selection is None for record in run.images)


def _fact(name: str, value: float | None, full: float | None, digits: int) -> str:
    """A name, a number and a bar as long as the number's share of what all tokens cost."""
    share = 100 * min(1.0, value / full) if full and value is not None else None
    bar = "" if share is None else f' style="--share:{share:.1f}%"'
    number = "-" if value is None else f"{value:.{digits}f}"
    return f"<div{bar}><dt>{name}</dt><dd>{number}</dd></div>"


def _plan(run: Run) -> str:
    return _fold(
        "Plan (JSON)", f'<div class="vp-source">{COPY}<pre tabindex="0">{escape(run.plan.to_json())}</pre></div>'
    )


def _fold(name: str, inside: str) -> str:
    return f"<details><summary>{name}</summary>{inside}</details>"


def _muted(text: str) -> str:
    return f'<p class="vp-note">{escape(text)}</p>'
