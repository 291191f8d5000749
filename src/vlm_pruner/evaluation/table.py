"""Results as Markdown, every number with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vlm_pruner.budget import Keep
from vlm_pruner.evaluation.cells import MEASURE
from vlm_pruner.evaluation.results import BenchResults, Row
from vlm_pruner.evaluation.statistics import Bootstrap, Interval

__all__ = [
    "is_frame", "left_out_lines", "markdown", "method_table", "percent", "table", "type_table", "unasked_lines"
]  # fmt: skip

Timing = Mapping[str, Mapping[str, float]]
"""`label@budget` -> select_ms and prefill_ms."""


def markdown(results: BenchResults, timing: Timing | None = None, *, reference: str = MEASURE) -> str:
    """The whole report: one table per budget, accuracy per question type, and what could not be run.

    `reference` is the method to which every other one is compared in pairs, where it is there.
    """
    bootstrap = results.bootstrap()
    parts = [_heading(results)]
    for budget in dict.fromkeys(r.budget for r in results.rows() if not is_frame(r)):
        title = (
            f"At the cost of {MEASURE} at {budget}" if results.equal else f"{_asked(budget)} visual tokens asked for"
        )
        parts.append(f"## {title}\n\n{method_table(results, budget, bootstrap, timing or {}, reference)}")
    parts.append(f"## Accuracy per question type, %\n\n{type_table(results, bootstrap)}")
    if results.unasked:
        parts.append("## Not asked\n\n" + "\n".join(f"- {line}" for line in unasked_lines(results.unasked)))
    if results.left_out:
        parts.append("## Not run\n\n" + "\n".join(left_out_lines(results.left_out)))
    return "\n\n".join(parts) + "\n"


def _asked(budget: Keep) -> str:
    """ "64", or "11.1 % of the"."""
    return str(budget) if isinstance(budget, int) else f"{100 * budget:g} % of the"


def is_frame(row: Row) -> bool:
    """Rows without a budget of their own: the upper and the lower end of the scale."""
    return row.label in ("none", "blind")


def _heading(results: BenchResults) -> str:
    pictures, tokens, split = len(set(results.scenes)), results.model["tokens"], results.split
    counted = "pictures of any number of visual tokens" if tokens is None else f"{tokens} visual tokens a picture"
    unit = "picture" if "match" in split else "scene"
    source = (
        f"of {split['name']} ({split['fingerprint']}), answers matched by {split['match']}"
        if "match" in split
        else f"of the {split['name']} split (version {split['version']})"
    )
    return (
        f"{len(results.types)} questions about {pictures} {unit}{'s' * (pictures > 1)} {source}, "
        f"model {results.model['name']} ({results.model['weights']}), "
        f"{counted}, {results.model['layers']} decoder layers. "
        f"Brackets: 95 % bootstrap interval over {unit}s. Methods with a schedule may end with fewer tokens than they "
        "were asked for."
    )


def method_table(
    results: BenchResults, budget: Keep, bootstrap: Bootstrap, timing: Timing, reference: str = MEASURE
) -> str:
    """The methods at one budget, best retention first, between the unpruned and the blind model."""
    full = results.row("none").correct
    rows = [r for r in results.rows() if r.budget == budget and not is_frame(r)]
    rows.sort(key=lambda r: -bootstrap.retention(r.correct, full).value)
    frame = {r.label: r for r in results.rows() if is_frame(r)}
    rows = [*filter(None, [frame.get("none")]), *rows, *filter(None, [frame.get("blind")])]
    against = next((r for r in rows if r.label == reference), None)
    versus = f"retention against {reference}"
    head = [
        "method", "left at the end", "tokens per layer", "prefill GFLOP", "accuracy %", "retention %", versus,
        "evidence kept %", "no evidence left %", "object tokens kept %", "redundancy", "select ms", "prefill ms",
    ]  # fmt: skip
    lines = []
    for row in rows:
        times = timing.get(f"{row.label}@{row.budget}", {})
        compare = results.difference(row, against, bootstrap) if against and row.label != reference else None
        lines.append([
            row.label + (f" ({len(row.cells)} seeds)" if len(row.cells) > 1 else ""),
            _number(row.mean("kept"), 0),
            _number(row.mean("layer_average"), 1),
            _number(row.mean("flops"), 2, 1e-9),
            percent(bootstrap.accuracy(row.correct)),
            percent(bootstrap.retention(row.correct, full)),
            percent(compare, sign=True, bold=True),
            _number(row.mean("evidence_kept"), 1, 100),
            _number(row.mean("evidence_lost"), 1, 100),
            _number(row.mean("object_kept"), 1, 100),
            _number(row.mean("redundancy"), 3),
            _number(times.get("select_ms"), 2),
            _number(times.get("prefill_ms"), 1),
        ])  # fmt: skip
    told = [i for i, _ in enumerate(head) if any(line[i] for line in lines)]  # of some sources nothing is known
    return table([head[i] for i in told], [[line[i] for i in told] for line in lines])


def type_table(results: BenchResults, bootstrap: Bootstrap, budget: Keep | None = None) -> str:
    """Accuracy of every row, or of those at one budget, on every question type, chance first."""
    head = ["method", "budget", *bootstrap.types, "mean"]
    chance = [results.chance[t] for t in bootstrap.types if t in results.chance]
    lines = []
    if len(chance) == len(bootstrap.types):
        lines = [["chance", "", *(_number(c, 1, 100) for c in chance), _number(sum(chance) / len(chance), 1, 100)]]
    for row in results.rows():
        if budget not in (None, row.budget) and not is_frame(row):
            continue
        values = [*bootstrap.type_accuracy(row.correct).values(), bootstrap.accuracy(row.correct)]
        lines.append([row.label, str(row.budget), *(_number(v.value, 1, 100) for v in values)])
    return table(head, lines)


def left_out_lines(left_out: Sequence[Mapping[str, Any]]) -> list[str]:
    """One item per method and reason, its budgets put together."""
    budgets: dict[tuple[str, str], list[Keep]] = {}
    for item in left_out:
        budgets.setdefault((item["label"], item["reason"]), []).append(item["budget"])
    return [f"- **{label}** at {', '.join(map(str, at))}: {reason}" for (label, reason), at in budgets.items()]


def unasked_lines(unasked: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line per type of questions that the model was not asked, and why: no number of the report has them."""
    counted = ((one, "question" if one["questions"] == 1 else "questions") for one in unasked)
    return [f"left out: {one['questions']} {noun} of {one['type']}: {one['reason']}" for one, noun in counted]


def _number(value: float | None, digits: int, factor: float = 1.0) -> str:
    return "" if value is None else f"{value * factor:.{digits}f}"


def percent(interval: Interval | None, *, sign: bool = False, bold: bool = False) -> str:
    """`93.1 [91.0, 95.2]`; bold where an interval of a difference excludes zero."""
    if interval is None or math.isnan(interval.value):
        return ""
    form = "{:+.1f}" if sign else "{:.1f}"
    value, low, high = (form.format(100 * x) for x in (interval.value, interval.low, interval.high))
    text = f"{value} [{low}, {high}]"
    return f"**{text}**" if bold and interval.excludes_zero else text


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, all columns but the first to the right."""
    rule = ["---"] + ["--:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines))
