"""Answers and reports as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from vlm_pruner.asking import Answer, Loaded, facts
from vlm_pruner.report import provenance

__all__ = ["answers_table", "as_json"]


def answers_table(answers: Sequence[Answer]) -> Table:
    """One column for each answer, all tokens first; the times of all were measured in the same run."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    table.add_column("")
    for answer in answers:
        table.add_column(answer.name, justify="right")
    columns = [facts(answer) for answer in answers]
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    full = f'probability of "{_short(answers[0].text)}"'
    if len({answer.text for answer in answers}) > 1:
        table.add_row("probability of this answer", *(f"{answer.probability:.3f}" for answer in answers))
    table.add_row(escape(full), *(f"{answer.full_probability:.3f}" for answer in answers))
    return table


def _short(text: str) -> str:
    return text if len(text) <= 24 else text[:21] + "..."


def as_json(
    loaded: Loaded, image: str, question: str, answers: Sequence[Answer], overlay: Path | None = None
) -> dict[str, Any]:
    """Everything that the table says, and the plans and reports in full."""
    return {
        **provenance(),
        "model": loaded.name,
        "image": Path(image).name,
        "question": question,
        "answers": [_answer_json(a) for a in answers],
        "overlay": None if overlay is None else str(overlay),
    }


def _answer_json(answer: Answer) -> dict[str, Any]:
    times = answer.times
    return {
        "name": answer.name,
        "text": answer.text,
        "asked": answer.report.asked,
        "kept": answer.report.kept,
        "layer_average": answer.report.layer_average,
        "tokens": answer.tokens,
        "probability": answer.probability,
        "probability_of_full_answer": answer.full_probability,
        "first_token_ms": times.first_token_ms,
        "prefill_ms": times.prefill_ms,
        "selection_ms": times.selection_ms,
        "decode_ms_per_token": times.decode_ms_per_token,
        "timed_runs": times.runs,
        "report": answer.report.to_dict(),
    }
