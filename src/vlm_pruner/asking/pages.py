"""The HTML page that compares answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from vlm_pruner.asking.answers import Answer, Refused
from vlm_pruner.asking.models import Loaded
from vlm_pruner.asking.pictures import answer_layout, answer_selection
from vlm_pruner.asking.videos import Shown, notes_about
from vlm_pruner.asking.wording import describe, facts, timed, title_of
from vlm_pruner.report import provenance
from vlm_pruner.viz import Entry, film, film_pages, merge_map, overlay_panels, report_page, strip
from vlm_pruner.viz.film import contact

__all__ = ["answers_page"]


def answers_page(
    loaded: Loaded,
    shown: Shown,
    question: str,
    answers: Sequence[Answer | Refused],
    *,
    name: str = "",
    notes: Sequence[str] = (),
) -> str:
    """The self-contained HTML page that compares the answers; the first is the one with all tokens.

    Args:
        name: of the image or video.
        notes: further remarks for the foot of the page.
    """
    full = answers[0]
    assert isinstance(full, Answer)
    entries = [_entry(loaded, shown, answer, full) for answer in answers]
    columns = [*facts(full), "probability of this answer", "probability of the full answer"]
    device = loaded.model.device.type.upper()
    dtype = str(loaded.model.dtype).removeprefix("torch.")
    about = provenance()
    what = "Image" if isinstance(shown, Image.Image) else "Video"
    versions = ", ".join(f"{package.replace('_', '-')} {number}" for package, number in about["versions"].items())
    return report_page(
        question=question,
        image=shown if isinstance(shown, Image.Image) else contact(shown.pictures(), shown.times),
        entries=entries,
        columns=columns,
        model=f"{loaded.name}, {device}, {dtype}",
        about=f"{what}: {name or 'unnamed'}, {_size(shown)}. Made {about['date']} with {versions}.",
        notes=(
            f"{timed(full.times.runs)}, on {device}.",
            "Left at the end: methods with a schedule may end with fewer tokens than they were asked for. "
            "Per layer: visual tokens that enter a decoder layer, mean over the layers; that is what a budget costs.",
            "First token: vision tower, prefill and selection. FLOPs and KV bytes are counted for the language model.",
            "Probabilities are products over the tokens of an answer, end mark included; decoding is greedy.",
            *_remarks(answers),
            *notes,
            *(f"{what}: {said}." for said in notes_about(shown)),
        ),
    )


def _remarks(answers: Sequence[Answer | Refused]) -> list[str]:
    """What the reports remark, once each, with the runs that it is true of."""
    said: dict[str, list[str]] = {}
    for answer in answers[1:]:
        for remark in answer.report.remarks if isinstance(answer, Answer) else ():
            said.setdefault(remark, []).append(answer.name)
    return [f"{', '.join(names)}: {remark}." for remark, names in said.items()]


def _size(shown: Shown) -> str:
    if isinstance(shown, Image.Image):
        return f"{shown.width} x {shown.height} pixels"
    frames = f"{len(shown)} frame{'s' if len(shown) > 1 else ''} of {shown.duration:.1f} seconds"
    return f"{frames}, {shown.size[0]} x {shown.size[1]} pixels"


def _entry(loaded: Loaded, shown: Shown, answer: Answer | Refused, full: Answer) -> Entry:
    if isinstance(answer, Refused):
        title = answer.name if answer.plan is None else title_of(answer.plan)
        return Entry(title, "", None, 0.0, 0.0, ["-"] * (len(facts(full)) + 2), reason=answer.reason)
    title, note = describe(answer)
    if answer is not full and answer.report.images:
        note += f"; {answer.report.layer_average:.1f} tokens a layer on average"
    cells = [*facts(answer).values(), f"{answer.probability:.3f}", f"{answer.full_probability:.3f}"]
    same = None if answer is full else answer.text == full.text
    entry = Entry(title, answer.text, same, answer.probability, answer.full_probability, cells, note)
    if not answer.images or answer.images[0].selection is None:
        return entry
    layout, selection = answer_layout(loaded, shown, answer), answer_selection(answer)
    drawn = [shown] if isinstance(shown, Image.Image) else shown.pictures()
    more, pages = [], []
    if isinstance(shown, Image.Image):
        picture = strip(overlay_panels(shown, layout, selection, width=640, numbers=False))
    else:
        picture = film(drawn, layout, selection, title="", width=640)
        pages = film_pages(drawn, layout, selection, width=400)
    if selection.source is not None:
        more.append(("Where the dropped tokens went", merge_map(drawn, layout, selection, title="", width=640)))
    return replace(entry, picture=picture, more=more, plan=answer.plan.to_json(), film=pages)
