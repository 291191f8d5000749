"""Tables of docs/fast.md, from the result files of `benchmarks.fast` and `benchmarks.fast_curve`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import RESULTS
from benchmarks.fast import LIMITS, chosen, front
from benchmarks.fast_curve import PRESET, RIVALS
from benchmarks.measured import markdown
from benchmarks.offline_tables import where_run
from numpy.typing import NDArray

from vlm_pruner.evaluation import BenchResults
from vlm_pruner.evaluation.statistics import Bootstrap
from vlm_pruner.evaluation.table import percent
from vlm_pruner.viz.plots import figure_class

__all__ = ["SOURCES", "at_time", "draw"]

Row = dict[str, Any]
LENIENT = 1.05  # a rival may take so many times as long: where its times hardly differ, noise would decide


def validation() -> str:
    """The front of all plans, and at every limit of time the best plan and the best of one stage."""
    found = json.loads((RESULTS / "fast.json").read_text(encoding="utf-8"))
    rows: list[Row] = found["rows"]
    full = rows[0]
    asked = (
        f"{full['questions']} questions about {full['pictures']} validation scenes, {len(rows)} plans and budgets. "
        f"Unpruned: accuracy {full['accuracy']:.1f} %, {full['first_token_ms']:.0f} ms to the first token."
    )
    lines = [_line(row) for row in front(rows)]
    head = ["plan", "kept at the end", "time, of unpruned", "accuracy", "change"]
    limits = []
    for limit in LIMITS:
        within = sorted((r for r in rows if r["first_token_share"] <= limit), key=lambda r: -r["accuracy"])
        limits += [[f"{limit:.0%}", *_line(row)] for row in within[:5]]
    best = f"Best on average over the limits below: **{chosen(rows)}**."
    within = "The five most accurate plans within a share of the unpruned time:"
    tables = [markdown(head, lines), within, markdown(["at most", *head], limits)]
    return "\n\n".join(
        [
            f"{asked} {best}",
            "Plans that no other plan beats in both time and accuracy:",
            *tables,
            "*`python -m benchmarks.fast`*",
        ]
    )


def _line(row: Row) -> list[str]:
    low, high = row["change_interval"]
    change = f"{row['change']:+.1f} [{low:+.1f}, {high:+.1f}]"
    return [row["name"], str(row["keep"]), f"{row['first_token_share']:.2f}", f"{row['accuracy']:.1f}", change]


def _curve() -> tuple[BenchResults, Bootstrap, Mapping[str, Any], str]:
    results = BenchResults.load(RESULTS / "fast_curve.json")
    found = json.loads((RESULTS / "fast_curve_times.json").read_text(encoding="utf-8"))
    machine = found["machine"]
    where = f"{machine['processor']}, {machine['threads']} thread, torch {machine['torch']}"
    return results, results.bootstrap(), found["cells"], f"*{where}: `python -m benchmarks.fast_curve`*"


def at_time(points: list[tuple[float, NDArray[np.float64]]], share: float) -> NDArray[np.float64] | None:
    """[questions] what a method answers right at a share of the unpruned time, between the two budgets around it.

    Args:
        points: (time, right answers) of its budgets; those that another one beats in both do not count.
    """
    points = sorted(points, key=lambda point: (point[0], -point[1].mean()))
    least = points[0][0]
    points = [p for p in points if not any(q[0] <= p[0] and q[1].mean() > p[1].mean() for q in points)]
    if share < least:
        return None
    if share < points[0][0]:
        return points[0][1]
    for (before, low), (after, high) in itertools.pairwise(points):
        if before <= share <= after:
            part = (share - before) / (after - before) if after > before else 0.0
            return (1 - part) * low + part * high
    return points[-1][1]


def test() -> str:
    """Accuracy and time of every method and budget, then the preset less each rival at equal time."""
    results, bootstrap, found, where = _curve()
    lines, points = [], {}
    for row in results.rows():
        cost = found[f"{row.label}@{row.budget}"]
        points.setdefault(row.label, []).append((cost["first_token_share"], np.atleast_2d(row.correct).mean(0)))
        lines.append([
            row.label, str(row.budget), f"{cost['first_token_ms']:.0f}", f"{cost['first_token_share']:.2f}",
            percent(bootstrap.accuracy(row.correct)),
        ])  # fmt: skip
    head = ["method", "tokens", "first token, ms", "of unpruned", "accuracy %"]
    less = []
    full = (1.0, np.atleast_2d(results.row("none").correct).mean(0))
    for row in (row for row in results.rows() if row.label == PRESET):
        share = found[f"{row.label}@{row.budget}"]["first_token_share"]
        line = [str(row.budget), f"{share:.2f}"]
        for rival in RIVALS:
            right = at_time([*points[rival], full], LENIENT * share)
            least = min(time for time, _ in points[rival])
            line.append(
                f"never as fast (its least time: {least:.2f})"
                if right is None
                else percent(bootstrap.accuracy_difference(row.correct, right), sign=True, bold=True)
            )
        less.append(line)
    against = ["tokens", "of unpruned time", *(f"ahead of {rival}" for rival in RIVALS)]
    return (
        f"{len(results.types)} questions of the test split.\n\n{markdown(head, lines)}\n\n"
        f"How many points of accuracy `fast` is ahead in the same time:\n\n{markdown(against, less)}\n\n{where}"
    )


def draw(path: Path) -> Path:
    """Accuracy against time to first token, a curve with its band for every method."""
    results, bootstrap, found, _ = _curve()
    curves: dict[str, list[tuple[float, Any]]] = {}
    for row in results.rows():
        if row.label != "none":
            share = 100 * found[f"{row.label}@{row.budget}"]["first_token_share"]
            curves.setdefault(row.label, []).append((share, bootstrap.accuracy(row.correct)))
    figure = figure_class()(figsize=(8.0, 5.0), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for name, points in curves.items():
        costs, values = zip(*sorted(points, key=lambda point: point[0]), strict=True)
        middle, low, high = ([100 * getattr(value, end) for value in values] for end in ("value", "low", "high"))
        (line,) = axes.plot(costs, middle, "o-", markersize=4, label=name)
        axes.fill_between(costs, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    axes.axhline(100 * bootstrap.accuracy(results.row("none").correct).value, color="0.4", linestyle="--")
    axes.set_xlabel("time to first token, % of the unpruned model's (dashed)")
    axes.set_ylabel("accuracy, % (mean over question types)")
    axes.legend(frameon=False)
    figure.savefig(path)
    return path


SOURCES: dict[str, Callable[[], str]] = {
    "fast-validation": where_run(validation, "python -m benchmarks.fast"),
    "fast-test": where_run(test, "python -m benchmarks.fast_curve"),
}
"""Name of a table -> its source."""

if __name__ == "__main__":
    draw(Path(__file__).parents[1] / "docs" / "images" / "fast.png")
