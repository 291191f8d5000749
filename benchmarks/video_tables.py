"""Tables of docs/offline_video.md, from the result files of `benchmarks.video_offline` and the training log."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

from benchmarks.offline_tables import load, of_each_type
from benchmarks.training import VIDEO, checked, lines_of
from benchmarks.video_offline import ONE_FRAME

from vlm_pruner.evaluation import BenchResults
from vlm_pruner.evaluation.table import is_frame, method_table, percent, table, type_table

__all__ = ["SOURCES"]

COMMAND = "python -m benchmarks.video_offline"
REFERENCE = "as for pictures"


def at(share: float) -> str:
    """All methods at one budget, compared with VLM-Pruner in pairs."""
    results, bootstrap = load("video_offline")
    return method_table(results, _count(results, share), bootstrap, {})


def _count(results: BenchResults, share: float) -> int:
    return -(-round(results.model["tokens"] * share * 1000) // 1000)


def split() -> str:
    """What was asked of which model."""
    results, _ = load("video_offline")
    of = f"{len(results.types)} questions about {len(set(results.scenes))} videos of {results.split['version']}"
    return f"{of}: {of_each_type(results)}, {results.model['tokens']} visual tokens a video."


def unpruned() -> str:
    """Every type: by chance, with one frame, unpruned, and with no visual token in sight from layer 2 on."""
    results, bootstrap = load("video_offline")
    shown = [r for r in results.rows() if is_frame(r) or r.label == ONE_FRAME]
    columns = [bootstrap.type_accuracy(row.correct) for row in shown]
    lines = [
        [name, f"{100 * results.chance[name]:.1f}", *(percent(column[name]) for column in columns)]
        for name in bootstrap.types
    ]
    mean = sum(results.chance.values()) / len(results.chance)
    lines.append(["mean", f"{100 * mean:.1f}", *(percent(bootstrap.accuracy(row.correct)) for row in shown)])
    names = {"none": "unpruned", "blind": "blind from layer 2"}
    return table(["right answers, %", "chance", *(names.get(row.label, row.label) for row in shown)], lines)


def types(share: float) -> str:
    """Accuracy of every method per type."""
    results, bootstrap = load("video_offline")
    return type_table(results, bootstrap, _count(results, share))


def ablation() -> str:
    """Forms of VLM-Pruner for videos, each against the form for pictures, on the validation videos."""
    results, bootstrap = load("video_ablation")
    full = results.row("none").correct
    budgets = list(dict.fromkeys(row.budget for row in results.rows() if row.label == REFERENCE))
    lines = []
    for label in dict.fromkeys(row.label for row in results.rows() if not is_frame(row)):
        line = [label]
        for budget in budgets:
            row, plain = results.row(label, budget), results.row(REFERENCE, budget)
            line.append(percent(bootstrap.retention(row.correct, full)))
            same = label == REFERENCE
            line.append("" if same else percent(results.difference(row, plain, bootstrap), sign=True, bold=True))
        lines.append(line)
    head = ["form", *(h for b in budgets for h in (f"retention at {b}, %", "against pictures' form"))]
    return table(head, lines)


def training() -> str:
    """The learning curve in figures: every second line of the log."""
    lines = []
    for stage in json.loads(VIDEO.read_text(encoding="utf-8"))["stages"]:
        rows = [line for line in lines_of(stage) if line.get("val_mean") is not None]
        for line in [*rows[:-1:2], rows[-1]]:
            held = checked(line)
            lines.append([
                f"{line['seconds'] / 60:.0f}", str(line["step"]), f"{line['visits']:,d}", f"{line['answers']:.3f}",
                f"{sum(held) / len(held):.1f}",
            ])  # fmt: skip
    return table(["minutes", "steps", "videos seen", "loss of answers", "right on held-out videos, %"], lines)


SOURCES: dict[str, Callable[[], str]] = {
    "video-split": split,
    "video-unpruned": unpruned,
    "video-25": partial(at, 0.25),
    "video-15": partial(at, 0.15),
    "video-10": partial(at, 0.1),
    "video-types": partial(types, 0.1),
    "video-ablation": ablation,
    "video-training": training,
}
